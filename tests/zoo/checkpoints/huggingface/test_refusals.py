"""Broken and hostile folders in Hugging Face's layout: each is refused in one line that names the fault, in time.

Nothing of them is run: what is set as a trap would leave a file behind.
"""

import json
import shutil
import struct
import time

import mlx.core as mx
import pytest

from tests.zoo.checkpoints.huggingface.references import copied, model_folder
from tests.zoo.checkpoints.huggingface.spoiling import (
    INDEX,
    SINGLE,
    Break,
    both,
    config,
    content,
    cut,
    fifo,
    header,
    indexed,
    linked_out,
    pickled,
    tensors,
    text,
    without,
)
from zoo.checkpoints import load_checkpoint, load_model
from zoo.config import UserError

Q = "model.layers.1.self_attn.q_proj.weight"
SHARD = "model-00002-of-00003.safetensors"
NORM = "model.norm.weight"
WHOLE: dict[str, tuple[Break, str]] = {
    # Weights.
    "no weights": (without(SINGLE), f"must hold {SINGLE} or {INDEX}; both are missing"),
    "only pickles": (both(without(SINGLE), pickled("pytorch_model.bin")), "'pytorch_model.bin': opening it would run"),
    "only other forms": (both(without(SINGLE), text("tf_model.h5", "")), "it holds 'tf_model.h5'"),
    "a pickle renamed": (pickled(SINGLE), "it is a pickle"),
    "an archive of PyTorch renamed": (content(lambda old: b"PK\x03\x04" + old), "it is a pickle"),
    "nothing in it": (content(lambda old: b""), "must begin with a header inside the file"),
    "a header of 2^60 bytes": (content(lambda old: struct.pack("<Q", 2**60) + old[8:]), f"header of {2**60}"),
    "cut short": (content(lambda old: old[:-5]), "must hold"),
    "more behind the end": (content(lambda old: old + b"\0" * 64), "must hold"),
    "no JSON in the header": (content(lambda old: old[:8] + b"[" * 200 + old[208:]), "must be JSON"),
    "offsets that overlap": (header(lambda each: each[Q].update(data_offsets=[0, 1536])), "must lie at bytes"),
    "a tensor of 2^60 elements": (header(lambda each: each[Q].update(shape=[2**30, 2**30])), "must lie at bytes"),
    "a dtype nobody knows": (header(lambda each: each[Q].update(dtype="F8_E4M3")), "must have a known dtype"),
    "whole numbers for weights": (
        tensors(lambda each: each.update({Q: each[Q].astype(mx.int32)})),
        f"{Q} must be float32 or float16 or bfloat16; got I32",
    ),
    "swapped axes": (tensors(lambda each: each.update({Q: each[Q].T})), rf"{Q} must have shape \(24, 16\)"),
    "NaN in a weight": (tensors(lambda each: each.update({NORM: each[NORM] * mx.nan})), "must hold finite numbers"),
    "a tensor missing": (cut(Q), f"tensors of a llama of this config; missing: {Q}"),
    "an unknown tensor": (
        tensors(lambda each: each.update({"model.layers.0.self_attn.sinks": mx.ones(4)})),
        "unexpected: 'model.layers.0.self_attn.sinks'",
    ),
    "more layers than the config says": (config(num_hidden_layers=1), "unexpected: 'model.layers.1"),
    "fewer layers than the config says": (config(num_hidden_layers=3), "missing: model.layers.2"),
    "no embedding": (cut("model.embed_tokens.weight"), "missing: model.embed_tokens.weight"),
    "a pipe for weights": (fifo(SINGLE), "must be a regular file"),
    "a folder for weights": (both(without(SINGLE), lambda folder: (folder / SINGLE).mkdir()), "must be a regular file"),
    "weights behind a link out": (linked_out(SINGLE), "it is a link out of it"),
    # Config.
    "a pipe for the config": (fifo("config.json"), "must be a regular file"),
    "a config behind a link out": (linked_out("config.json"), "it is a link out of it"),
    "no JSON in the config": (text("config.json", "{"), "config.json must be JSON"),
    "a list for the config": (text("config.json", "[]"), "must be a JSON object"),
    "a deep config": (text("config.json", "[" * 100_000), "must be nested at most"),
    "another architecture": (config(model_type="mamba"), "model_type must be one that is read here; got 'mamba'"),
    "no architecture": (config(model_type=None), "model_type must be one that is read here; got None"),
    "a list for the architecture": (config(model_type=["llama"]), "model_type must be one that is read here"),
    "another class": (config(architectures=["LlamaForTokenClassification"]), "architectures must be read here"),
    "code of its own": (config(auto_map={"AutoModel": "m.M"}), "auto_map must not be given: it names code"),
    "code for MLX": (config(model_file="model.py"), "model_file must not be given: it names code"),
    "no width": (config(hidden_size=None), "missing key 'hidden_size'"),
    "a width of 0": (config(hidden_size=0), "hidden_size must be at least 1"),
    "a width that nothing has": (config(hidden_size=2**31 - 1), "must have shape"),
    "heads that nothing has": (
        config(head_dim=2**31 - 2, num_attention_heads=1, num_key_value_heads=1),
        "must have shape",
    ),
    "a text for a width": (config(hidden_size="16"), "hidden_size must be a whole number"),
    "layers without end": (config(num_hidden_layers=10**9), "num_layers must be at most 2000"),
    "another vocabulary": (config(vocab_size=97), r"must have shape \(97, 16\)"),
    "an activation nobody knows": (config(hidden_act="snake"), "hidden_act must be a known activation; got 'snake'"),
    "an epsilon of 0": (config(rms_norm_eps=0), "norm_eps must be at least"),
    "NaN for a base": (text("config.json", '{"model_type": "llama", "rope_theta": NaN}'), "must hold finite numbers"),
    "another kind of positions": (config(rope_scaling={"type": "su"}), "rope_type must be a known kind; got 'su'"),
    "a list for positions": (config(rope_scaling=[1]), "rope_scaling must be a mapping"),
    "a list for the kind": (config(rope_scaling={"type": []}), "rope_type must be a known kind"),
    "scaling without a factor": (config(rope_scaling={"type": "linear"}), "must have factor where rope_type is linear"),
    "scaling by nothing": (config(rope_scaling={"type": "linear", "factor": 0}), "factor must be at least"),
    "scaling of heads that nothing has": (
        config(
            rope_scaling={"type": "yarn", "factor": 2}, head_dim=2**31 - 2, num_attention_heads=1, num_key_value_heads=1
        ),
        "head_dim must be at most",
    ),
    "part of a head turned": (config(partial_rotary_factor=0.5), "partial_rotary_factor must be 1"),
    "quantized by others": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantization_config must be MLX's; got quant_method 'gptq'",
    ),
    # Tokenizer.
    "a tokenizer with code": (
        text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["trap.T", null]}, "tokenizer_class": "T"}'),
        "contains custom code",
    ),
    "no JSON in the tokenizer": (text("tokenizer.json", "{"), "tokenizer.json must be JSON"),
    "a pipe for the tokenizer": (fifo("tokenizer.json"), "must be a regular file"),
}
SHARDED: dict[str, tuple[Break, str]] = {
    "a shard missing": (without(SHARD), f"{SHARD} must exist; it is missing"),
    "a shard outside": (
        both(
            lambda folder: shutil.move(folder / SHARD, folder.parent / SHARD),
            indexed(lambda where: where.update({name: f"../{SHARD}" for name in where if where[name] == SHARD})),
        ),
        f"must name files inside itself; got '../{SHARD}'",
    ),
    "an absolute path": (indexed(lambda where: where.update({NORM: "/etc/hosts.safetensors"})), "inside itself"),
    "a pickle for a shard": (
        indexed(lambda where: where.update({NORM: "pytorch_model.bin"})),
        "in a .safetensors file",
    ),
    "a number for a shard": (indexed(lambda where: where.update({NORM: 3})), "must be in a file; got 3"),
    "a shard behind a link out": (linked_out(SHARD), "it is a link out of it"),
    "a tensor in another shard": (
        indexed(lambda where: where.update({NORM: next(name for name in where.values() if name != where[NORM])})),
        f"'{NORM}' must be in",
    ),
    "a tensor twice": (
        both(
            lambda folder: shutil.copy(folder / SHARD, folder / "more.safetensors"),
            indexed(lambda where: where.update({next(n for n in where if where[n] == SHARD): "more.safetensors"})),
        ),
        "must not hold",
    ),
    "thousands of shards": (
        indexed(lambda where: where.update({str(number): f"{number}.safetensors" for number in range(5000)})),
        "must name at most",
    ),
    "no map": (text(INDEX, "{}"), "weight_map must name a file for each tensor; got None"),
    "no JSON in the index": (text(INDEX, "{"), "must be JSON"),
    "a pipe for the index": (fifo(INDEX), "must be a regular file"),
}
QUANTIZED: dict[str, tuple[Break, str]] = {
    "bits that MLX lacks": (
        config(quantization={"group_size": 32, "bits": 99}),
        "bits must be one of affine's; got 99",
    ),
    "groups of 0": (config(quantization={"group_size": 0, "bits": 4}), "group_size must be one of affine's; got 0"),
    "groups of another size": (
        config(quantization={"group_size": 64, "bits": 4}),
        "quantization must be|must have shape",
    ),
    "other bits than the weights": (config(quantization={"group_size": 32, "bits": 8}), "must have shape"),
    "no group": (config(quantization={"bits": 4}), "missing key 'group_size'"),
    "a list": (config(quantization=[4]), "quantization must be a mapping"),
    "a mode nobody knows": (
        config(quantization={"group_size": 32, "bits": 4, "mode": "x"}),
        "mode must be one of MLX's",
    ),
    "not said": (config(quantization=None, quantization_config=None), "unexpected: .*scales"),
    "a scale missing": (cut("model.layers.0.self_attn.q_proj.scales"), "unexpected: .*biases|must have shape"),
}
OTHERS: dict[str, tuple[str, Break, str]] = {
    "a window of 0": ("mistral", config(sliding_window=0), "sliding_window must be at least 1, or null; got 0"),
    "a window of text": ("mistral", config(sliding_window="all"), "sliding_window must be a whole number"),
    "layers of two kinds in Mistral": ("mistral", config(layer_types=["full_attention"] * 2), "must not be given"),
    "too few kinds of layers": (
        "qwen2_layers",
        config(layer_types=["full_attention"]),
        "layer_types must name 2 layers",
    ),
    "a kind of layer nobody knows": (
        "qwen2_layers",
        config(layer_types=["chunked_attention"] * 2),
        "layer_types must be full_attention or sliding_attention; got",
    ),
    "a window that is switched off": ("qwen2_layers", config(use_sliding_window=False), "sliding_window must be given"),
    "scores by the layer's number": (
        "gpt2_untied",
        config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx must be false; got True",
    ),
    "a text longer than its positions": ("gpt2_untied", config(n_positions=65), r"must have shape \(65, 16\)"),
    "relative positions": ("bert_encoder", config(position_embedding_type="relative_key"), "must be absolute"),
    "a decoder": ("bert_encoder", config(is_decoder=True), "is_decoder must be false"),
    "a norm under two names": (
        "bert_hub",
        tensors(
            lambda each: each.update({"bert.embeddings.LayerNorm.weight": each["bert.embeddings.LayerNorm.gamma"]})
        ),
        "must hold each tensor once",
    ),
}
EVERY = (
    *(("llama", name, *case) for name, case in WHOLE.items()),
    *(("llama_llama3", name, *case) for name, case in SHARDED.items()),
    *(("llama_4_bits", name, *case) for name, case in QUANTIZED.items()),
    *((model, name, *case) for name, (model, *case) in OTHERS.items()),
)


@pytest.mark.parametrize(("model", "name", "spoil", "message"), EVERY, ids=[f"{each[0]}-{each[1]}" for each in EVERY])
def test_a_broken_folder_is_refused_in_one_line(model, name, spoil, message, tmp_path):
    folder = copied(model, tmp_path)
    (folder / "trap.py").write_text(f"from pathlib import Path; Path({str(tmp_path / 'sprung')!r}).touch()")
    spoil(folder)
    before = sorted(path.name for path in folder.iterdir())
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    assert sorted(path.name for path in folder.iterdir()) == before
    # Not how fast it is, but that it ends.
    assert time.monotonic() - started < 60


def test_a_chat_template_that_never_ends_is_not_rendered_on_loading(tmp_path):
    folder = copied("llama", tmp_path)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    endless = "{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**described, "chat_template": endless}))
    (folder / "chat_template.jinja").write_text(endless)
    assert load_model(folder)[1].vocab_size == 96


def test_what_a_config_claims_besides_is_not_counted_up(tmp_path):
    folder = copied("llama", tmp_path)
    config(num_labels=2**31 - 1, id2label={"a": [{}]}, eos_token_id=10**30)(folder)
    assert load_model(folder)[1].vocab_size == 96


def test_a_folder_without_tokenizer_gives_its_model_and_no_more():
    folder = model_folder("llama_linear")
    assert load_checkpoint(folder).tokenizer is None
    with pytest.raises(UserError, match="must hold a tokenizer"):
        load_model(folder)
