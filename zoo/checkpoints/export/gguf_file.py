"""Writes a Llama or one of its relatives as a GGUF file: weights in float16, norms in float32, and the tokenizer.

mlx-lm writes such files too (`mlx_lm.fuse --export-gguf`), but every tokenizer as SentencePiece's, without the order of
its merges. Here the file is read again before it counts: a tokenizer that comes out of it with other tokens is refused.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.export.layout import Layout, layout_of
from zoo.checkpoints.gguf.header import read_header
from zoo.checkpoints.gguf.tokenizer import read_tokenizer, rule_of
from zoo.checkpoints.gguf.weights import name_in_file, stored_order
from zoo.checkpoints.tensors import require_finite
from zoo.config import UserError
from zoo.config.files import read_json_mapping
from zoo.data.tokenizers import PretrainedTokenizer, Tokenizer, load_tokenizer
from zoo.data.tokenizers.interface import SPACE
from zoo.data.tokenizers.pieces import uses_metaspace

# Named alike in Hugging Face's layout; Mistral is a Llama there.
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# The format's numbers of a token's kind.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_PREFIX = "tokenizer.ggml."
# Runs of spaces, digits, contractions, capitals and what is in no vocabulary: where rules and merges differ.
_PROBE = "  It's 12345 of them,\n\n\tWE'LL see!  été 漢字 🙂 def f(x):\n    return x[10:200]  # isn't it\r\n"


def write_gguf(path: Path, model: nn.Module, tokenizer: Tokenizer) -> Layout:
    """Writes a new file.

    Args:
        path: Of the file.
        model: A whole model, without adapters.
        tokenizer: Its tokenizer.

    Returns:
        How the model leaves in Hugging Face's layout.

    Raises:
        UserError: If a GGUF file cannot hold the model or its tokenizer.
        OSError: If it cannot be written.
    """
    layout = layout_of(model, preferred="llama")
    architecture = _require_known(layout)
    config = layout.config
    heads = (config["num_attention_heads"], config["num_key_value_heads"])
    arrays = dict(tree_flatten(model.parameters()))
    weights = {}
    for tensor in layout.table:
        name, array = name_in_file(tensor.theirs), tensor.theirs_from(arrays)
        rows = stored_order(name, architecture, array.shape[0], heads)
        weights[name] = (array if rows is None else array[rows]).astype(mx.float16 if array.ndim > 1 else mx.float32)
    require_finite(weights, f"dtype: {path}: float16")
    metadata = {**_described(config, architecture), **_tokens(tokenizer, config["vocab_size"])}
    try:
        mx.save_gguf(str(path), weights, metadata)
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())) from error
    _require_same(path, tokenizer)
    return layout


def _require_known(layout: Layout) -> str:
    config, kind = layout.config, layout.architecture
    scaling = config.get("rope_scaling") or {}
    for held, what in (
        (kind in _ARCHITECTURES, f"architecture {kind}"),
        ("quantization" not in config, "quantized weights (give dequantize=true)"),
        (config.get("sliding_window") is None, "sliding windows"),
        (not scaling or scaling["rope_type"] == "linear", f"rotary positions scaled by {scaling.get('rope_type')}"),
        (config.get("hidden_act") == "silu", f"activation {config.get('hidden_act')}"),
        (not config.get("mlp_bias"), "biases of feed-forward layers"),
        (kind == "qwen2" or not config.get("attention_bias"), "biases of attention"),
    ):
        if not held:
            raise UserError(f"format must not be gguf, which has no {what} here; got gguf")
    return _ARCHITECTURES[kind]


def _described(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    numbers = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
        "vocab_size": config["vocab_size"],
    }
    reals = {"attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "rope.freq_base": config["rope_theta"]}
    metadata: dict[str, Any] = {"general.architecture": architecture, "general.name": architecture}
    # 1 is float16, but for the norms.
    metadata["general.file_type"] = mx.array(1, dtype=mx.uint32)
    if config.get("rope_scaling"):
        metadata[f"{architecture}.rope.scaling.type"] = "linear"
        reals["rope.scaling.factor"] = config["rope_scaling"]["factor"]
    metadata |= {f"{architecture}.{key}": mx.array(value, dtype=mx.uint32) for key, value in numbers.items()}
    return metadata | {f"{architecture}.{key}": mx.array(value, dtype=mx.float32) for key, value in reals.items()}


def _exported(tokenizer: Tokenizer, folder: Path) -> tuple[PretrainedTokenizer, dict[str, Any]]:
    """The tokenizer as other tools have it, and its description."""
    tokenizer.export(folder)
    exported = load_tokenizer(folder)
    assert isinstance(exported, PretrainedTokenizer)
    return exported, read_json_mapping(folder / "tokenizer.json", what="tokenizer")


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """What a file says of its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        exported, backend = _exported(tokenizer, Path(folder))
    wrapper, model = exported.wrapper, backend["model"]
    if model["type"] != "BPE":
        raise UserError(f"format must not be gguf, which has no tokenizer of kind {model['type']}; got gguf")
    pieces: dict[str, int] = wrapper.get_vocab()
    names = {token: piece for piece, token in pieces.items()}
    kinds = {token: _USER_DEFINED for token in names if token in {each["id"] for each in backend["added_tokens"]}}
    kinds |= dict.fromkeys((each["id"] for each in backend["added_tokens"] if each["special"]), _CONTROL)
    metadata: dict[str, Any] = {}
    if uses_metaspace(backend) and model.get("byte_fallback"):
        metadata |= _sentence_piece(backend, names, vocab_size)
        kinds |= {pieces[each]: _BYTE for each in (f"<0x{value:02X}>" for value in range(256)) if each in pieces}
        names = {token: each.replace(" ", SPACE) for token, each in names.items()}
    else:
        metadata |= _byte_level(backend)
    if wrapper.unk_token_id is not None:
        kinds[wrapper.unk_token_id] = _UNKNOWN
    listed = [names.get(token, f"[UNUSED{token}]") for token in range(vocab_size)]
    types = [kinds.get(token, _NORMAL) if token in names else _UNUSED for token in range(vocab_size)]
    metadata |= {f"{_PREFIX}tokens": listed, f"{_PREFIX}token_type": mx.array(types, dtype=mx.int32)}
    before, behind = exported.around_a_text()
    # A model that was trained here begins a text after the end of a document.
    start = before[0] if before else wrapper.bos_token_id
    ids = {"bos": start, "eos": exported.eos_id, "unknown": wrapper.unk_token_id, "padding": wrapper.pad_token_id}
    for word, token in ids.items():
        if token is not None and token < vocab_size:
            metadata[f"{_PREFIX}{word}_token_id"] = mx.array(token, dtype=mx.uint32)
    metadata[f"{_PREFIX}add_bos_token"] = mx.array(bool(before))
    metadata[f"{_PREFIX}add_eos_token"] = mx.array(bool(behind))
    template = exported.chat_template()
    return metadata if template is None else {**metadata, "tokenizer.chat_template": template.source}


def _byte_level(backend: dict[str, Any]) -> dict[str, Any]:
    merges = [each if isinstance(each, str) else " ".join(each) for each in backend["model"]["merges"]]
    # Where nothing is merged, it does not matter how a text is cut. MLX writes no empty list.
    rule, merged = (rule_of(backend["pre_tokenizer"]), {f"{_PREFIX}merges": merges}) if merges else ("gpt-2", {})
    if rule is None:
        raise UserError("format must not be gguf, which has no name for how this tokenizer cuts a text; got gguf")
    return {f"{_PREFIX}model": "gpt2", f"{_PREFIX}pre": rule, **merged}


def _sentence_piece(backend: dict[str, Any], names: dict[int, str], vocab_size: int) -> dict[str, Any]:
    """SentencePiece's form, whose scores say in which order pieces are merged."""
    rank: dict[str, int] = {}
    for number, each in enumerate(backend["model"]["merges"]):
        rank.setdefault("".join(each.split(" ")) if isinstance(each, str) else "".join(each), number)
    scores = [float(-rank.get(names.get(token, ""), len(rank) + token)) for token in range(vocab_size)]
    said = json.dumps([backend["normalizer"], backend["pre_tokenizer"]])
    prefixed = '"Prepend"' in said or '"prepend_scheme": "first"' in said or '"prepend_scheme": "always"' in said
    return {
        f"{_PREFIX}model": "llama",
        f"{_PREFIX}scores": mx.array(scores, dtype=mx.float32),
        f"{_PREFIX}add_space_prefix": mx.array(prefixed),
    }


def _require_same(path: Path, tokenizer: Tokenizer) -> None:
    """Reads the tokenizer of a file again, and compares its tokens."""
    with tempfile.TemporaryDirectory() as folder:
        again = read_tokenizer(read_header(path), Path(folder))
    texts = [_PROBE, *(tokenizer.decode([token]) for token in range(0, tokenizer.vocab_size, 97))]
    for text in ("".join(texts), *texts):
        if again.encode_prompt(text) != tokenizer.encode_prompt(text) and SPACE not in text:
            raise UserError("format must not be gguf, from which this tokenizer would come back another; got gguf")
