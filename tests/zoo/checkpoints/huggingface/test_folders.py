"""Folders as people have them: caches of links, tensors that stand twice, names that older versions gave."""

import json

import mlx.core as mx
import pytest

from tests.zoo.checkpoints.huggingface.references import PARITY, copied, difference, expected, model_folder
from tests.zoo.checkpoints.huggingface.spoiling import config, tensors
from zoo.checkpoints import content_name, load_checkpoint

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def parity(folder, name):
    facts = expected(name)
    return difference(load_checkpoint(folder).model(mx.array(facts["tokens_BL"])), facts["logits_BLV"])


def test_the_hubs_own_cache_of_links_is_read(tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(model_folder("llama_llama3").iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert parity(snapshot, "llama_llama3") < PARITY


def test_embeddings_that_are_said_to_be_tied_and_differ_are_not_tied(tmp_path):
    folder = copied("llama", tmp_path)
    config(tie_word_embeddings=True)(folder)
    assert not load_checkpoint(folder).model.config.tie_word_embeddings
    assert parity(folder, "llama") < PARITY


@pytest.mark.parametrize(
    "change",
    [lambda each: each.update({HEAD: each[EMBEDDING]}), lambda each: each.update({HEAD: each.pop(EMBEDDING)})],
    ids=["twice", "as the head alone"],
)
def test_tied_embeddings_may_stand_anywhere(change, tmp_path):
    folder = copied("llama_linear", tmp_path)
    tensors(change)(folder)
    assert load_checkpoint(folder).model.config.tie_word_embeddings
    assert parity(folder, "llama_linear") < PARITY


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"architectures": None, "torch_dtype": "float16", "num_key_value_heads": 2, "unheard_of": [1]}),
        ("llama_of_4", {"rope_scaling": {}, "rope_parameters": {"rope_theta": 333.0}, "rope_theta": 5.0}),
        # The older name counts where both are there, and a base within it before one beside it.
        ("llama_yarn_of_4", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 2e3}}),
        ("mistral", {"sliding_window": 7, "rope_scaling": None}),
        ("qwen2", {"sliding_window": 3, "max_window_layers": 0, "layer_types": None}),
        ("gpt2", {"n_ctx": 5, "reorder_and_upcast_attn": True, "activation_function": "gelu_pytorch_tanh"}),
    ],
)
def test_other_spellings_of_a_config_change_nothing(name, changes, tmp_path):
    folder = copied(name, tmp_path)
    config(**changes)(folder)
    assert parity(folder, name) < PARITY


def test_an_attention_is_exchanged():
    facts, folder = expected("mistral"), model_folder("mistral")
    tokens_BL = mx.array(facts["tokens_BL"])
    exact, full = (load_checkpoint(folder, attention=name).model for name in ("swa_masked", "mha_tiled"))
    # The shipped window of 64 is longer than the text.
    assert difference(exact(tokens_BL), full(tokens_BL)) < PARITY < difference(exact(tokens_BL), facts["logits_BLV"])


def test_the_name_of_a_content_changes_with_a_weight_and_not_with_the_place(tmp_path):
    folder = copied("llama_llama3", tmp_path)
    same = content_name(folder)
    assert same == content_name(model_folder("llama_llama3"))
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert content_name(folder) != same
    config(rope_theta=3.0)(folder)
    assert json.loads(content_name(folder))["config.json"] != json.loads(same)["config.json"]
