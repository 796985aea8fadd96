"""How far a measured call may lie from its float64 reference; the gate's own table, keyed by dtype.

Errors are relative, so that they mean the same at every length: outputs of full attention shrink like L^-1/2, and an
absolute bound that suits the first query would let anything pass as the last. A value's error is divided by the root
mean square of its own output vector, a gradient's by the norm of the gradient.

The bounds are a few times the largest error of any correct variant, at lengths from 1 to 4096. What they must still
tell apart is far above them: the mildest fault on the list, a window one key too long, moves an output by about
1 / sqrt(window_size) of itself, 0.12 at 64 keys.
"""

import dataclasses
import functools

import mlx.core as mx


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest accepted relative errors.

    Attributes:
        value: Of outputs.
        gradient: Of directional derivatives.
    """

    value: float
    gradient: float


# float32: rounding of 6e-8 over sums of thousands of terms that nearly cancel. float16 and bfloat16 round at 5e-4
# and 4e-3; scores of up to 5 lose that much in their exponent, and the weights are rounded once more.
TOLERANCES = {
    mx.float32: Tolerance(value=1e-4, gradient=1e-4),
    mx.float16: Tolerance(value=2e-2, gradient=2e-2),
    mx.bfloat16: Tolerance(value=1.5e-1, gradient=1e-1),
}
# float32 whose matrix products keep 10 bits, as the tensor cores of some GPUs do by default: rounds like float16.
_SHORT_PRODUCTS = TOLERANCES[mx.float16]


def tolerance(dtype: mx.Dtype) -> Tolerance:
    """The bounds for a dtype on this device."""
    return _SHORT_PRODUCTS if dtype == mx.float32 and _products_are_short() else TOLERANCES[dtype]


@functools.cache
def _products_are_short() -> bool:
    """Whether float32 matrix products lose bits of their operands; read off one product, on the device in use."""
    # 1 + 2^-13 needs 13 bits of fraction: a product that keeps 10 returns 1.
    fine = 1 + 2.0**-13
    product = mx.full((64, 64), fine) @ mx.eye(64)
    return bool(mx.any(product != fine).item())
