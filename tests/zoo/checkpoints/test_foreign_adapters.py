"""Adapters of PEFT, and of models whose modules have other names elsewhere, are read and written with equal logits."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import load_adapters as mlx_lm_load_adapters
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.tolerances import tolerance
from tests.zoo.checkpoints.adapted import TOKENS, adapted, ours
from tests.zoo.checkpoints.huggingface.references import model_folder
from zoo.attention.catalog import variant
from zoo.checkpoints import load_whole
from zoo.checkpoints.export import export_model
from zoo.checkpoints.foreign_adapters import load_adapters, write_mlx_lm, write_peft
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer
from zoo.models.adapters import Adapters, LoRAConfig, attach_adapters

PEFT = Path(__file__).parents[2] / "references" / "peft"


@pytest.mark.parametrize("name", ["lora", "dora", "last", "bert", "gpt2", "gpt2_dora"])
def test_adapters_from_peft_are_read_with_its_logits_and_written_so_that_they_are_read_again(name, tmp_path):
    expected = np.load(PEFT / "expected.npz")[name]
    bases = {"bert": "bert_classes", "gpt2": "gpt2", "gpt2_dora": "gpt2"}
    for folder in (PEFT / name, tmp_path / "peft"):
        model = load_whole(model_folder(bases[name]) if name in bases else PEFT / "base").model
        load_adapters(model, folder, base="base")
        model.eval()
        found = model.classify(TOKENS) if name == "bert" else model(TOKENS)
        assert np.allclose(np.array(found), expected, atol=1e-5)
        write_peft(tmp_path / "peft", model)
    read, written = (
        dict(mx.load(str(folder / "adapter_model.safetensors"))) for folder in (PEFT / name, tmp_path / "peft")
    )
    assert read.keys() == written.keys()
    assert all(np.array_equal(read[each], written[each]) for each in read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be LORA; got 'IA3'"),
        ({"bias": "all"}, "bias must be none"),
        ({"r": "3"}, "r must be a whole number"),
        ({"r": 4}, r"must have shape \(4, 24\); got \(3, 24\)"),
        ({"use_dora": True}, "missing: .*lora_magnitude_vector"),
        ({"alpha_pattern": {"q_proj": 1.0}}, "alpha_pattern must be empty"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern must be empty"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights must leave the base as it is"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_in_one_line(change, message, tmp_path):
    shutil.copytree(PEFT / "lora", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        load_adapters(load_whole(PEFT / "base").model, tmp_path / "peft", base="base")
    with pytest.raises(UserError, match=r"must hold adapters\.safetensors or adapter_model\.safetensors"):
        load_adapters(load_whole(PEFT / "base").model, tmp_path, base="base")
    with pytest.raises(UserError, match=r"must hold adapters of the model's blocks alone; got 'base_model\.model\."):
        load_adapters(load_whole(model_folder("gpt2")).model, PEFT / "lora", base="base")
    with pytest.raises(UserError, match="must adapt the same layers of each of the last blocks, of 3"):
        load_adapters(ours(), PEFT / "lora", base="base")


def stock_gpt(kind=None, lora=None):
    """A GPT-2, with adapters that do something."""
    stock = {"activation": "gelu_tanh", "intermediate_size": 64, "tie_word_embeddings": True}
    model = ours(family="gpt", num_kv_heads=None, init_std=0.2, **stock)
    if kind is not None:
        attach_adapters(model, Adapters(kind=kind, lora=lora, base="b", base_fingerprint="f"))
        mx.random.seed(9)
        model.update(tree_map(lambda each: each + mx.random.normal(each.shape) * 0.1, model.trainable_parameters()))
    model.eval()
    return model


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    "keys", [None, ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"), ("self_attn.k_proj",), ("mlp.down_proj",)]
)
def test_adapters_of_a_stock_gpt_become_those_of_its_one_matrix_of_queries_keys_and_values(keys, kind, tmp_path):
    adapted = stock_gpt(kind, LoRAConfig(rank=2, keys=keys, num_layers=2))
    expected = adapted(TOKENS)
    export_model(tmp_path, stock_gpt(), tokenizer=BytesTokenizer())
    write_mlx_lm(tmp_path / "mlx_lm", adapted)
    write_peft(tmp_path / "peft", adapted)
    other = mlx_lm_load_adapters(load_in_mlx_lm(tmp_path)[0], str(tmp_path / "mlx_lm"))
    other.eval()
    assert mx.abs(other(TOKENS) - expected).max() <= tolerance(mx.float32)
    assert mx.abs(stock_gpt()(TOKENS) - expected).max() > 1e-2
    for folder in ("mlx_lm", "peft"):
        again = stock_gpt()
        load_adapters(again, tmp_path / folder, base="b")
        again.eval()
        assert mx.abs(again(TOKENS) - expected).max() <= tolerance(mx.float32)
        write_peft(tmp_path / f"again_{folder}", again)
        paths = [tmp_path / each / "adapter_model.safetensors" for each in ("peft", f"again_{folder}")]
        one, two = (dict(mx.load(str(path))) for path in paths)
        assert one.keys() == two.keys()
        assert all(mx.array_equal(one[name], two[name]) for name in one)


def test_adapters_that_transformers_has_no_place_for_are_written_whole_or_not_at_all(tmp_path):
    model = ours(family="gpt", num_kv_heads=None, attention=variant("gated_delta").as_mapping())
    attach_adapters(model, Adapters(kind="lora", lora=LoRAConfig(), base="b", base_fingerprint="f"))
    assert not write_peft(tmp_path / "peft", model)
    assert not (tmp_path / "peft").exists()


@pytest.mark.parametrize("name", ["lora", "gpt2"])
def test_adapters_in_half_precision_are_trained_in_float32(name, tmp_path):
    shutil.copytree(PEFT / name, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    arrays = {key: array.astype(mx.float16) for key, array in mx.load(str(path)).items()}
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays)
    model = load_whole(model_folder("gpt2") if name == "gpt2" else PEFT / "base").model
    load_adapters(model, tmp_path / "peft", base="base")
    assert {each.dtype for _, each in tree_flatten(model.trainable_parameters())} == {mx.float32}


def test_an_adapter_file_whose_blocks_differ_says_where(tmp_path):
    shutil.copytree(PEFT / "lora", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    arrays = {key: array for key, array in mx.load(str(path)).items() if "layers.1.mlp" not in key}
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays)
    with pytest.raises(UserError, match=r"got \['self_attn.q_proj', 'self_attn.v_proj'\] in block 1, "):
        load_adapters(load_whole(PEFT / "base").model, tmp_path / "peft", base="base")


@pytest.mark.parametrize(("name", "base"), [("lora", "model."), ("bert", "bert."), ("gpt2", "transformer.")])
def test_adapters_of_transformers_model_without_its_heads_are_read_too(name, base, tmp_path):
    shutil.copytree(PEFT / name, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    arrays = {
        key.replace(f"base_model.model.{base}", "base_model.model."): each for key, each in mx.load(str(path)).items()
    }
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays)
    found = []
    for folder in (PEFT / name, tmp_path / "peft"):
        model = load_whole(
            model_folder({"bert": "bert_classes"}.get(name, name)) if name != "lora" else PEFT / "base"
        ).model
        load_adapters(model, folder, base="base")
        found.append(dict(tree_flatten(model.trainable_parameters())))
    assert found[0].keys() == found[1].keys()
    assert all(mx.array_equal(each, found[1][key]).item() for key, each in found[0].items())


def test_adapters_of_layers_that_differ_in_their_attention_are_read_again(tmp_path):
    hybrid = {"name": "mixed", "layer_pattern": [variant(name).as_mapping() for name in ("mha", "gated_delta", "mha")]}
    model = ours(attention=hybrid)
    attach_adapters(model, Adapters(kind="lora", lora=LoRAConfig(), base="b", base_fingerprint="f"))
    model.update(tree_map(lambda x: x + 0.05, model.trainable_parameters()))
    assert write_peft(tmp_path / "peft", model)
    again = ours(attention=hybrid)
    load_adapters(again, tmp_path / "peft", base="base")
    assert mx.array_equal(again(TOKENS), model(TOKENS)).item()


def test_only_a_model_that_mlx_lm_names_otherwise_needs_a_file_for_it(tmp_path):
    assert not write_mlx_lm(tmp_path / "llama", adapted("lora", LoRAConfig()))
    elsewhere = ours(family="gpt", num_kv_heads=None, attention=variant("linear").as_mapping())
    attach_adapters(elsewhere, Adapters(kind="lora", lora=LoRAConfig(), base="b", base_fingerprint="f"))
    assert not write_mlx_lm(tmp_path / "gpt", elsewhere)
    assert not list(tmp_path.iterdir())
