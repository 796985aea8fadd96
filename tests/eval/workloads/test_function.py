"""Two cells compute one function if their attention and their setting do."""

from typing import Any

import pytest

from eval.workloads import computed_function
from tests.eval.workloads import settings


def _function(name: str, **changes: Any) -> tuple[object, ...]:
    return computed_function(settings.cell("layer", name, length=100).model_copy(update=changes), "softmax")


def test_attention_counts_but_for_how_it_is_computed() -> None:
    assert _function("mha") == _function("mha_tiled") == _function("adaptive")
    assert len({_function(name) for name in ("mha", "gqa", "mqa", "swa")}) == 4


@pytest.mark.parametrize("changes", [{"causal": False}, {"length": 99}, {"dtype": "bfloat16"}, {"num_kv_heads": 2}])
def test_settings_count(changes: dict[str, Any]) -> None:
    assert _function("mha", **changes) != _function("mha")


def test_compiled_or_not_is_the_same_function() -> None:
    assert _function("mha", compiled=False) == _function("mha", compiled=True)
