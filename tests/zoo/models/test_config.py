"""Configs: both ways, and every mistake refused in one line that names it."""

import json
from typing import Any

import mlx.core as mx
import pytest

from tests.zoo.models import cases
from zoo.config import UserError
from zoo.models import model_config_from_mapping


@pytest.mark.parametrize("attention", [cases.MHA, cases.WINDOW, cases.HYBRID], ids=lambda mapping: mapping["name"])
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_a_config_survives_json(family: str, attention: dict[str, Any]) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    config = cases.config(family, attention=attention, dropout=0.25, positions="rotary", rope_scaling=scaling)
    assert model_config_from_mapping(json.loads(json.dumps(config.as_mapping()))) == config


def test_heads_that_do_not_divide_are_refused_with_the_choices() -> None:
    with pytest.raises(UserError) as caught:
        cases.config("gpt", hidden_size=128, num_heads=5)
    assert str(caught.value) == (
        "model: num_heads must divide hidden_size 128; got 5 (choices: 1, 2, 4, 8, 16, 32, 64, 128)"
    )


def test_heads_need_not_divide_when_head_dim_is_given() -> None:
    assert cases.config("llama", num_heads=6, num_kv_heads=3, head_dim=14).resolved_head_dim == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, r"num_kv_heads must divide num_heads 4; got 3 \(choices: 1, 2, 4\)"),
        ({"num_layers": 0}, "num_layers must be at least 1; got 0"),
        ({"head_dim": 5, "positions": "rotary"}, "head_dim must be even with rotary positions; got 5"),
        ({"positions": "sinusoidal"}, "positions must be one of learned, rotary, alibi, none; got 'sinusoidal'"),
        ({"activation": "gelo"}, "activation must be one of gelu, gelu_tanh, silu, relu, relu2; got 'gelo'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
        ({"norm_eps": 0.0}, "norm_eps must be at least 1e-30; got 0.0"),
        ({"norm_eps": 1e300}, r"norm_eps must be at most 1.0; got 1e\+300"),
        ({"init_std": 1e300}, "init_std must be at most 1000.0"),
        ({"rope_theta": 0}, "rope_theta must be at least 1.0; got 0.0"),
        ({"rope_theta": 1e308}, "rope_theta must be at most 1000000000000000.0"),
        ({"num_layers": 10**9}, "num_layers must be at most 2000; got 1000000000"),
        ({"num_heads": 10**9}, "num_heads must be at most 65536; got 1000000000"),
        ({"hidden_size": 10**10}, "hidden_size must be at most 2147483647; got 10000000000"),
        ({"vocab_size": 2**31}, "vocab_size must be at most 2147483647"),
        ({"num_heads": 60_000, "head_dim": 60_000}, "num_heads must give at most 2147483647 channels together"),
        ({"max_seq_length": 9}, "unknown key 'max_seq_length'; did you mean 'max_seq_len'?"),
        ({"qk_norm": True}, "unknown key 'qk_norm'"),
        ({"attention": "mha"}, "attention must be a variant; got 'mha'"),
        ({"vocab_size": None}, "vocab_size must be a whole number where no tokenizer says it; got None"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^model[:.] ?{message}"):
        cases.config("gpt", **changes)


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    message = r"^model: family must be one of the model families; got 'gtp' \(choices: gpt, bert, llama\)$"
    with pytest.raises(UserError, match=message):
        cases.config("gtp")


def test_a_null_vocabulary_is_the_tokenizers() -> None:
    assert model_config_from_mapping(cases.mapping("gpt", vocab_size=None), tokenizer_vocab_size=777).vocab_size == 777


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused() -> None:
    larger = model_config_from_mapping(cases.mapping("gpt"), tokenizer_vocab_size=cases.VOCAB_SIZE)
    assert larger.vocab_size == cases.VOCAB_SIZE
    with pytest.raises(UserError, match="vocab_size must be at least the tokenizer's 54; got 53"):
        model_config_from_mapping(cases.mapping("gpt"), tokenizer_vocab_size=cases.VOCAB_SIZE + 1)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({}, r"rope_scaling must name its kind as rope_type; got None \(choices: default, linear, dynamic, llama3"),
        ({"rope_type": "ntk"}, "rope_scaling must name its kind as rope_type; got 'ntk'"),
        ({"rope_type": 7}, "rope_scaling must name its kind as rope_type; got 7"),
        ({"type": "linear", "rope_type": "yarn", "factor": 2.0}, "rope_scaling must name its kind as rope_type"),
        ({"rope_type": "linear"}, "rope_scaling: missing key 'factor'; the keys are factor"),
        ({"rope_type": "linear", "factor": "two"}, "rope_scaling.factor must be a number; got 'two'"),
        ({"rope_type": "linear", "factor": 0}, "rope_scaling: factor must be at least 1e-06; got 0.0"),
        ({"rope_type": "linear", "factor": 1e300}, "rope_scaling: factor must be at most 1000000.0"),
        ({"rope_type": "linear", "factor": 2.0, "faktor": 2.0}, "rope_scaling: unknown key 'faktor'"),
        (
            {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 1.0},
            "rope_scaling: high_freq_factor must be above",
        ),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": None}, "rope_scaling.beta_fast must be a number; got None"),
        ({"rope_type": "default", "factor": 2.0}, "rope_scaling must have no fields where rope_type is default"),
        (
            {
                "rope_type": "longrope",
                "short_factor": [1.0],
                "long_factor": [1.0],
                "original_max_position_embeddings": 9,
            },
            "rope_scaling.short_factor must have 3 items, half of head_dim; got 1",
        ),
    ],
)
def test_a_scaling_of_rotary_positions_is_read_by_its_kind(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^model: {message}"):
        cases.config("llama", rope_scaling=scaling)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "default"},
        {"type": "linear", "rope_type": "linear", "factor": 2},
        {"type": "dynamic", "factor": 2.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 16},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.0, 1.0],
            "long_factor": [1.0, 2.0, 4.0],
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda scaling: scaling.get("rope_type", scaling.get("type")),
)
def test_every_kind_of_scaling_computes(scaling: dict[str, Any]) -> None:
    logits_BLV = cases.model("llama", rope_scaling=scaling)(cases.tokens(2, 5))
    assert mx.isfinite(logits_BLV).all().item()


def test_the_choices_of_a_number_with_ten_digits_are_listed_at_once() -> None:
    with pytest.raises(
        UserError, match=r"must divide hidden_size 1000000000; got 7 \(choices: 1, 2, 4, .*, 1000000000\)"
    ):
        cases.config("gpt", hidden_size=10**9, num_heads=7, intermediate_size=8)
