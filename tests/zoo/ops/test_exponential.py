"""Our exponentials against NumPy's in float64, and against MLX's own."""

import math

import mlx.core as mx
import numpy as np
import pytest

from zoo.ops.exponential import exp, is_slow, normal_cdf, sigmoid

# One unit in the last place of float32 is 1.2e-7 at most; the documented bounds.
RELATIVE, ABSOLUTE = 1.2e-7, 3e-7


def _points(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 200_003).astype(np.float32)


def _relative_error(actual: mx.array, expected: np.ndarray) -> float:
    return np.abs(np.array(actual, dtype=np.float64) / expected - 1).max()


def test_exp_is_no_further_from_the_truth_than_mlxs() -> None:
    x = _points(-87, 88)
    truth = np.exp(x.astype(np.float64))
    ours, mlxs = (_relative_error(function(mx.array(x)), truth) for function in (exp, mx.exp))
    assert ours <= mlxs
    assert ours <= RELATIVE or not is_slow(mx.array(x))


def test_exp_saturates_at_zero_and_infinity() -> None:
    x = mx.array([-math.inf, -1e30, -104.0, 0.0, 89.0, 1e30, math.inf])
    assert exp(x).tolist() == [0.0, 0.0, 0.0, 1.0, math.inf, math.inf, math.inf]


@pytest.mark.parametrize("function", [exp, sigmoid, normal_cdf])
def test_nan_stays_nan(function) -> None:
    values = function(mx.array([0.5, math.nan, -0.5]))
    assert mx.isnan(values).tolist() == [False, True, False]


def test_sigmoid_is_right_in_both_tails() -> None:
    x = _points(-85, 85)
    truth = 1 / (1 + np.exp(-x.astype(np.float64)))
    # The bound of exp and two roundings.
    assert _relative_error(sigmoid(mx.array(x)), truth) <= max(
        2 * RELATIVE, _relative_error(mx.sigmoid(mx.array(x)), truth)
    )
    assert sigmoid(mx.array([-math.inf, -1e4, 1e4, math.inf])).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_normal_cdf_is_the_error_functions() -> None:
    x = _points(-9, 9)[::20]
    truth = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    assert np.abs(np.array(normal_cdf(mx.array(x))) - truth).max() <= ABSOLUTE
    assert normal_cdf(mx.array([-math.inf, 0.0, math.inf])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (exp, np.exp),
        (sigmoid, lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
        (normal_cdf, lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
    ],
    ids=["exp", "sigmoid", "normal_cdf"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_the_derivatives(function, derivative, compiled: bool) -> None:
    x, cotangent = _points(-6, 6)[::97][:2061].reshape(-1, 3), 2.5
    gradient = mx.grad(lambda x: (cotangent * function(x)).sum())
    gradient = mx.compile(gradient) if compiled else gradient
    truth = cotangent * derivative(x.astype(np.float64))
    assert np.abs(np.array(gradient(mx.array(x))) - truth).max() <= 4 * ABSOLUTE * np.abs(truth).max()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize(("ours", "mlxs"), [(exp, mx.exp), (sigmoid, mx.sigmoid)])
def test_half_precision_is_left_to_mlx(ours, mlxs, dtype: mx.Dtype) -> None:
    x = mx.array(_points(-4, 4)[::999]).astype(dtype)
    assert not is_slow(x)
    assert ours(x).dtype == dtype
    assert mx.array_equal(ours(x), mlxs(x)).item()
