"""What a graph holds is read from the graph itself; two cells compute one function if attention and setting do."""

from typing import Any

import mlx.core as mx
import pytest

from eval.workloads import computed_function, operations, work_of
from tests.eval.workloads import settings
from zoo.runtime.backend import backend


def test_operations_are_counted_by_name_until_they_are_evaluated() -> None:
    a = mx.ones((3, 3))
    mx.eval(a)
    product = (a @ a) @ a + a
    assert operations(product) == {"Matmul": 2, "Add": 1}
    assert work_of([product], useful_flops=1, tokens=1).graph_nodes == 3
    mx.eval(product)
    assert operations(product) == {}


@pytest.mark.parametrize("gradient", [False, True])
def test_the_path_of_attention_is_the_one_that_mlx_takes_on_this_back_end(gradient: bool) -> None:
    q, k, v = (mx.zeros((1, 8, 24, 64)) for _ in range(3))
    mx.eval(q, k, v)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask="causal")

    outputs = (
        mx.grad(lambda *arrays: attend(*arrays).sum(), argnums=(0, 1, 2))(q, k, v) if gradient else attend(q, k, v)
    )
    path = work_of(outputs, useful_flops=1, tokens=1).attention_path
    # MLX has fused kernels on GPUs only.
    if backend() == "cpu":
        assert path == "fallback"
    elif not gradient:
        assert path == "fused"
    assert work_of(q + k, useful_flops=1, tokens=1).attention_path is None


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
