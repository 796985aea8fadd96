"""Which path attention takes is read from the graph itself."""

import mlx.core as mx
import pytest

from eval.graph import attention_path, fused_attention_paths, operations
from zoo.runtime.backend import backend


def test_operations_are_counted_by_name_until_they_are_evaluated() -> None:
    a = mx.ones((3, 3))
    mx.eval(a)
    product = (a @ a) @ a + a
    assert operations(product) == {"Matmul": 2, "Add": 1}
    mx.eval(product)
    assert operations(product) == {}


def test_a_written_out_softmax_is_the_fallback_and_no_softmax_is_an_error() -> None:
    scores = mx.ones((2, 5))
    assert attention_path(mx.softmax(scores, axis=-1)) == "fallback"
    with pytest.raises(ValueError, match="no softmax attention"):
        attention_path(scores + 1)


def test_the_path_is_the_one_that_mlx_documents_for_the_back_end() -> None:
    paths = fused_attention_paths(length=24, head_dim=64, dtype=mx.float32)
    assert set(paths) == {"forward", "gradient"}
    # MLX has fused kernels on GPUs only, and its CPU path is the fallback in both.
    if backend() == "cpu":
        assert paths == {"forward": "fallback", "gradient": "fallback"}
    else:
        assert paths["forward"] == "fused"
