"""Configs: both ways, and every mistake refused in one line that names it."""

import json
from typing import Any

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
        ({"norm_eps": 0.0}, "norm_eps must be positive; got 0.0"),
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
