"""exp, sigmoid, softmax and the normal distribution at a quarter of MLX's cost on a Linux CPU, no less accurate.

MLX's CPU back end calls exp once an element, unvectorised: 12 ns, most of what a small model's training step takes
once the matrix products are fast. Additions and multiplications cost 0.2 ns there, so the classic reduction pays:

    exp(x) = 2^n exp(r),   n = round(x log2(e)),   r = x - n ln(2) in [-ln(2)/2, ln(2)/2]

with exp(r) from the polynomial of Cephes (Moshier, https://www.netlib.org/cephes/, expf.c; relative error below
1e-7) and 2^n made from its bits. Only for float32 on that back end; everywhere else these are MLX's own functions.
Softmax and log-sum-exp are computed by the package of kernels, where it is there.
"""

import math
import sys
from collections.abc import Callable
from typing import cast

import mlx.core as mx

from zoo.runtime.native import kernels_for

_LOG2_E = 1.442695040888963407
# ln(2) in two parts, the first exact in few bits, so that n * _LN2_HIGH has no rounding error.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# Adding 1.5 * 2^23 rounds a small float32 to a whole number and leaves that number in the lowest bits.
_ROUND = 12582912.0
_EXPONENT_BIAS, _MANTISSA_BITS = 127, 23
# Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26: erfc(a) = exp(-a²) (a_1 t + … + a_5 t^5).
_ERFC = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0)
_ERFC_SCALE = 0.3275911
# Beyond these n would leave the exponent's 8 bits; at them the result already is 0 or infinity.
_LOWEST, _HIGHEST = -88.0, 89.0


def is_slow(x: mx.array) -> bool:
    """Whether MLX's own exponentials are unvectorised for this array: float32 on a CPU other than Apple's."""
    return x.dtype == mx.float32 and sys.platform != "darwin" and mx.default_device().type == mx.cpu


def exp(x: mx.array) -> mx.array:
    """E to the power x, any shape and floating dtype.

    In float32 on a Linux CPU the relative error stays below 1.2e-7; results below 8e-39 are 0, and results above
    2.4e38 are infinite. NaN stays NaN.
    """
    return _exp(x) if is_slow(x) else mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + exp(-x)), any shape and floating dtype; the gradient reuses the output."""
    return _sigmoid(x) if is_slow(x) else mx.sigmoid(x)


def normal_cdf(x: mx.array) -> mx.array:
    """Probability that a standard normal variable is below x, any shape and floating dtype.

    In float32 on a Linux CPU by Abramowitz and Stegun's 7.1.26, absolute error below 2e-7.
    """
    return _normal_cdf(x) if is_slow(x) else 0.5 + 0.5 * mx.erf(x * math.sqrt(0.5))


def normalised(x: mx.array) -> tuple[mx.array, mx.array]:
    """Log-sum-exp [..., 1] and softmax [..., V] along the last axis of an array [..., V] of any floating dtype.

    Each has its gradient, and costs nothing where it is not used. A row of nothing but -infinity has a log-sum-exp of
    -infinity and a softmax of NaN.
    """
    kernels = kernels_for(x)
    if kernels is not None and x.ndim > 0 and x.shape[-1] > 0:
        return kernels.log_sum_exp(x), kernels.softmax(x)
    if not is_slow(x):
        return mx.logsumexp(x, axis=-1, keepdims=True), mx.softmax(x, axis=-1, precise=True)
    top = mx.stop_gradient(mx.max(x, axis=-1, keepdims=True))
    exps = exp(x - mx.where(mx.isinf(top), 0.0, top))
    sums = exps.sum(axis=-1, keepdims=True)
    return mx.log(sums) + top, exps / sums


def polynomial_exp(x: mx.array) -> mx.array:
    """The reduction above, for float32; differentiate `exp` and not this."""
    x = mx.clip(x, _LOWEST, _HIGHEST)
    rounded = x * _LOG2_E + _ROUND
    n = rounded - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = _horner(_POLYNOMIAL, r)
    power_bits = (mx.view(rounded, mx.int32) + _EXPONENT_BIAS) << _MANTISSA_BITS
    return (series * (r * r) + r + 1.0) * mx.view(power_bits, mx.float32)


def _horner(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    result = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result


def _polynomial_sigmoid(x: mx.array) -> mx.array:
    return 1.0 / (1.0 + polynomial_exp(-x))


def _polynomial_normal_cdf(x: mx.array) -> mx.array:
    t = 1.0 / (1.0 + (_ERFC_SCALE * math.sqrt(0.5)) * mx.abs(x))
    tail = 0.5 * _horner(_ERFC, t) * polynomial_exp(-0.5 * (x * x))
    return 0.5 + mx.sign(x) * (0.5 - tail)


def _normal_density(x: mx.array) -> mx.array:
    return polynomial_exp(-0.5 * (x * x)) * (1.0 / math.sqrt(2.0 * math.pi))


def _with_gradient(
    function: Callable[[mx.array], mx.array], derivative: Callable[[mx.array, mx.array], mx.array]
) -> Callable[[mx.array], mx.array]:
    """The function with its derivative, a function of (input, output)."""
    differentiable = mx.custom_function(function)
    differentiable.vjp(lambda x, cotangent, output: cotangent * derivative(x, output))
    return cast(Callable[[mx.array], mx.array], differentiable)


_exp = _with_gradient(polynomial_exp, lambda _, output: output)
_sigmoid = _with_gradient(_polynomial_sigmoid, lambda _, output: output * (1.0 - output))
# A compiled step merges the density's exponential with the forward one.
_normal_cdf = _with_gradient(_polynomial_normal_cdf, lambda x, _: _normal_density(x))
