"""Softmax and log-sum-exp, compiled and of MLX's operations, against float64."""

import math

import mlx.core as mx
import numpy as np
import pytest

from zoo.ops import exponential
from zoo.runtime.native import native_kernels_if_any, why_no_native

KERNELS = native_kernels_if_any()
needs_kernels = pytest.mark.skipif(KERNELS is None, reason=str(why_no_native()))
BOUND, EPSILON = 2e-6, 2.0**-24
# Of a softmax or of a gradient a few times as large.
LEAST = 1e-37
# More than one task, and rests of a vector and of a block.
SHAPES = [(1,), (3, 5), (2, 3, 17), (70, 1031), (1, 50_003)]


@pytest.fixture(params=["compiled", "operations"])
def implementation(request, monkeypatch):
    """Both ways to compute them."""
    if request.param == "operations":
        monkeypatch.setattr(exponential, "kernels_for", lambda *_: None)
    elif KERNELS is None:
        pytest.skip(str(why_no_native()))


def truth(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    top = x.max(axis=-1, keepdims=True)
    sums = np.exp(x - top).sum(axis=-1, keepdims=True)
    return top + np.log(sums), np.exp(x - top) / sums


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.usefixtures("implementation")
def test_values_and_gradients_are_those_of_float64(shape, size) -> None:
    generator = np.random.default_rng(len(shape))
    x = (generator.standard_normal(shape) * size).astype(np.float32)
    dy = generator.standard_normal(shape).astype(np.float32)
    (log_sums, weights), (dx,) = mx.vjp(
        exponential.normalised, [mx.array(x)], [mx.zeros((*shape[:-1], 1)), mx.array(dy)]
    )
    expected_log_sums, expected = truth(x)
    assert np.all(np.abs(log_sums - expected_log_sums) <= BOUND * np.maximum(1, np.abs(expected_log_sums)))
    # The difference of a number and the largest of its row is rounded, and what is no normal float32 may be 0.
    bound = BOUND + EPSILON * (x.max(axis=-1, keepdims=True) - x)
    assert np.all(np.abs(weights - expected) <= bound * expected + LEAST)
    inner = (expected * dy).sum(axis=-1, keepdims=True)
    scale = expected * (np.abs(dy) + (expected * np.abs(dy)).sum(axis=-1, keepdims=True))
    assert np.all(np.abs(dx - expected * (dy - inner)) <= bound * scale + LEAST)
    dz = generator.standard_normal((*shape[:-1], 1)).astype(np.float32)
    _, (dx,) = mx.vjp(lambda x: exponential.normalised(x)[0], [mx.array(x)], [mx.array(dz)])
    assert np.all(np.abs(dx - expected * dz) <= bound * np.abs(expected * dz) + LEAST)


@pytest.mark.usefixtures("implementation")
def test_rows_of_what_is_no_finite_number() -> None:
    inf, nan = math.inf, math.nan
    x = mx.array([[-inf, -inf, -inf], [-inf, 1.0, -inf], [inf, 0.0, 1.0], [nan, 0.0, inf], [1.0, nan, 2.0]])
    log_sums, weights = (np.array(each) for each in exponential.normalised(x))
    assert np.array_equal(log_sums[:, 0], [-inf, 1.0, inf, nan, nan], equal_nan=True)
    assert np.array_equal(weights[1], [0, 1, 0])
    assert np.isnan(weights[[0, 3, 4]]).all()
    assert np.isnan(weights[2, 0])


@needs_kernels
def test_a_nearly_certain_row_loses_no_digits() -> None:
    log_sum, weights = exponential.normalised(mx.array([[0.0, -17.0, -18.0]]))
    assert log_sum.item() == pytest.approx(math.log1p(math.exp(-17) + math.exp(-18)), rel=BOUND)
    assert weights[0, 1].item() == pytest.approx(math.exp(-17), rel=BOUND)


@needs_kernels
def test_other_dtypes_and_empty_arrays_are_mlx_s() -> None:
    x = mx.random.normal((4, 9), key=mx.random.key(0)).astype(mx.bfloat16)
    log_sums, weights = exponential.normalised(x)
    assert weights.dtype == mx.bfloat16
    assert mx.allclose(log_sums, mx.logsumexp(x, axis=-1, keepdims=True)).item()
    assert exponential.normalised(mx.zeros((0, 4)))[1].shape == (0, 4)


@needs_kernels
def test_views_threads_and_memory_that_is_used_again_change_nothing() -> None:
    x = mx.random.normal((64, 96), key=mx.random.key(1))
    copy = mx.array(np.array(x.T[::2]))
    for function in (KERNELS.softmax, KERNELS.log_sum_exp):
        assert mx.array_equal(function(x.T[::2]), function(copy)).item()
    threads, results = KERNELS.num_threads(), []
    long = mx.random.normal((1000, 333), key=mx.random.key(2))
    for count in (1, 3):
        KERNELS.set_num_threads(count)
        results.append([np.array(KERNELS.softmax(long)), np.array(KERNELS.log_sum_exp(long))])
    KERNELS.set_num_threads(threads)
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))
    # The argument's own memory is written over only where nobody needs it any more.
    y = KERNELS.softmax(x + 1.0)
    assert mx.allclose(y, mx.softmax(x + 1.0, axis=-1), atol=1e-6).item()
    kept = x + 1.0
    mx.eval(KERNELS.softmax(kept))
    assert mx.array_equal(kept, x + 1.0).item()


@needs_kernels
@pytest.mark.parametrize(
    "x", [mx.zeros((3,), dtype=mx.int32), mx.zeros(()), mx.zeros((3, 0))], ids=["int", "0d", "empty"]
)
def test_what_the_kernels_do_not_compute_is_refused(x) -> None:
    for function in (KERNELS.softmax, KERNELS.log_sum_exp):
        with pytest.raises(ValueError, match="x must"):
            function(x)
