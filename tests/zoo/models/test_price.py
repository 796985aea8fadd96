"""Accounts of a model before it is built are those of the built one."""

from typing import Any, cast

import mlx.core as mx
import pytest

from tests.zoo.models import cases
from zoo.attention.catalog import attention_names, variant_mapping
from zoo.models import Load, ModelPrice
from zoo.models.build import build_model

# What the legacy form may not be used in, it is not built in.
ENCODERS_ONLY = "blocksparse_legacy"


def family_of(name: str) -> str:
    return "bert" if name == ENCODERS_ONLY else "gpt"


@pytest.mark.parametrize("name", attention_names())
def test_parameters_of_every_variant_are_counted_exactly(name: str) -> None:
    config = cases.config(family_of(name), attention=variant_mapping(name), num_layers=5)
    assert ModelPrice(config).num_parameters == build_model(config).num_parameters()


@pytest.mark.parametrize("positions", cases.POSITIONS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_parameters_of_every_family_are_counted_exactly(family: str, tied: bool, positions: str) -> None:
    for attention in (cases.MHA, cases.HYBRID):
        changes: dict[str, Any] = {"tie_word_embeddings": tied, "positions": positions, "attention": attention}
        config = cases.config(family, num_layers=7, **changes)
        assert ModelPrice(config).num_parameters == build_model(config).num_parameters()


@pytest.mark.parametrize("name", attention_names())
def test_the_cache_of_every_variant_is_counted_exactly(name: str) -> None:
    if name == ENCODERS_ONLY:
        return
    config = cases.config("gpt", attention=variant_mapping(name), num_layers=5, max_seq_len=400)
    counted = ModelPrice(config).cache_bytes(Load(batch_size=3, length=301))
    assert counted == build_model(config).cache_bytes(batch_size=3, length=301, dtype=mx.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9, "num_heads": 1, "intermediate_size": 8},
        {"vocab_size": 10**9},
        {"num_layers": 2_000, "attention": cases.HYBRID},
        {"num_heads": 65_536, "head_dim": 30_000},
        {"max_seq_len": 2**31 - 1},
    ],
    ids=str,
)
def test_what_no_machine_holds_is_priced_at_once(changes: dict[str, Any]) -> None:
    before = mx.get_active_memory()
    price = ModelPrice(cases.config("gpt", **changes))
    load = Load(batch_size=2**31 - 1, length=2**31 - 1)
    assert price.training_activations(load, recomputed=False) > 10**18
    assert price.forward_activations(load) > 10**18
    assert price.num_parameters > 10**6
    assert mx.get_active_memory() - before < 10**6


def test_a_price_changes_no_random_number():
    mx.random.seed((5 << 32) | 7)
    ModelPrice(cases.config("gpt"))
    (key,) = cast(list[mx.array], mx.random.state)
    assert key.tolist() == [5, 7]
