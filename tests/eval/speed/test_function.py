"""Two cells compute one function if only the implementation differs; anything else is said to be another function."""

import json
from typing import Any

import pytest

from eval.rows import Cell
from eval.speed.function import computed_function
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import variant_mapping


def _function(name: str, *, changes: dict[str, Any] | None = None, **parameters: Any) -> tuple[object, ...]:
    mapping = {**variant_mapping(name), **parameters}
    cell = Cell(
        suite="tests",
        group="tests",
        builder="layer",
        variant=name,
        attention=json.dumps(mapping),
        level="layer",
        mode="forward",
        length=100,
    )
    exact_class = "+".join(part.capabilities.exact_class for part in variant_from_mapping(mapping).variants())
    return computed_function(cell.model_copy(update=changes or {}), exact_class)


@pytest.mark.parametrize(
    ("one", "other"),
    [("mha", "mha_tiled"), ("swa", "swa_masked"), ("linear", "linear_cumsum"), ("mha_manual", "adaptive")],
)
def test_implementations_of_a_mechanism_are_one_function(one: str, other: str) -> None:
    assert _function(one) == _function(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("mha", "gqa"), ("mqa", "gqa"), ("mha", "swa"), ("linear", "linear_relu"), ("swa", "hybrid_swa")],
)
def test_mechanisms_and_groupings_of_heads_are_functions_of_their_own(one: str, other: str) -> None:
    assert _function(one) != _function(other)


def test_parameters_count_but_for_the_size_of_chunks() -> None:
    assert _function("swa", window_size=32) != _function("swa")
    assert _function("linear", chunk_size=16) == _function("linear")
    assert _function("mha", num_kv_heads=8) == _function("mha")


@pytest.mark.parametrize("changes", [{"causal": False}, {"length": 99}, {"dtype": "bfloat16"}, {"num_kv_heads": 2}])
def test_settings_count(changes: dict[str, Any]) -> None:
    assert _function("mha", changes=changes) != _function("mha")


def test_compiled_or_not_is_the_same_function() -> None:
    assert _function("mha", changes={"compiled": False}) == _function("mha")
