"""Attentions compute one function if only how they compute differs; anything else is another function."""

import json
from typing import Any

import pytest

from zoo.attention.catalog import variant_mapping
from zoo.attention.function import function_of

GROUPED = {"num_heads": 8, "num_kv_heads": 2}


def _function(name: str, *, heads: dict[str, int] | None = None, **parameters: Any) -> str:
    return function_of({**variant_mapping(name), **parameters}, **(heads or {}))


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
@pytest.mark.parametrize("heads", [None, {"num_heads": 8}])
def test_mechanisms_and_groupings_of_heads_are_functions_of_their_own(
    one: str, other: str, heads: dict[str, int] | None
) -> None:
    assert _function(one, heads=heads) != _function(other, heads=heads)


def test_parameters_count_but_for_those_that_only_tune() -> None:
    assert _function("swa", window_size=32) != _function("swa")
    for name in ("linear", "gated_delta"):
        assert _function(name, chunk_size=16) == _function(name)
    assert _function("adaptive", phase="forward") == _function("mha")


def test_a_default_counts_written_out_or_not() -> None:
    assert function_of({"name": "short", "mechanism": "linear"}) == _function("linear", eps=1e-6)


def test_settings_of_heads_that_a_model_makes_equal_are_one_function_there() -> None:
    assert _function("mha", num_kv_heads=8) != _function("mha")
    assert _function("mha", num_kv_heads=8, heads={"num_heads": 8}) == _function("mha", heads={"num_heads": 8})
    assert _function("mha", heads=GROUPED) == _function("mha", num_kv_heads=2, heads=GROUPED)
    assert _function("gqa", queries_per_kv_head=4, heads=GROUPED) == _function("mha", heads=GROUPED)
    assert _function("mha", heads=GROUPED) != _function("mqa", heads=GROUPED)
    assert _function("gated_delta", heads=GROUPED) == _function("gated_delta", heads=GROUPED)


def test_adaptive_attention_is_the_function_that_it_chooses_for_and_no_other() -> None:
    chosen = {"of": "sliding_window", "parameters": {"window_size": 64}}
    assert _function("adaptive", **chosen) == _function("swa", window_size=64)
    crossing = {"allow_mechanisms": ["sliding_window"]}
    found = [
        _function("adaptive", **crossing, parameters={"window_size": 32}),
        *(_function("adaptive", **crossing, calibration=path) for path in (None, "other.json")),
        *(_function(name) for name in ("mha", "swa")),
    ]
    assert len(set(found)) == len(found)


def test_the_layers_of_a_hybrid_count_with_their_order_and_share() -> None:
    swa, mha = variant_mapping("swa"), variant_mapping("mha")
    patterns = [[swa, mha], [mha, swa], [swa, swa, mha], [swa, {**swa, "window_size": 7}, mha]]
    names = {function_of({"name": "mixed", "layer_pattern": pattern}) for pattern in patterns}
    assert len(names) == len(patterns)
    assert function_of({"name": "mixed", "layer_pattern": [variant_mapping("swa_masked"), mha]}) in names


def test_what_was_written_elsewhere_is_taken_as_it_is() -> None:
    foreign = {"name": "theirs", "mechanism": "of_another_package", "implementation": "fast", "size": None}
    assert json.loads(function_of(foreign)) == {"mechanism": "of_another_package"}
