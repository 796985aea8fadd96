"""One table of tolerances, keyed by dtype; no test brings its own number without a reason beside it."""

import mlx.core as mx

VALUE = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 3e-2}
GRADIENT = {mx.float32: 1e-4, mx.float16: 2e-2, mx.bfloat16: 1e-1}


def tolerance(dtype: mx.Dtype, *, gradient: bool = False) -> float:
    """Largest accepted absolute difference to the float64 reference, for values of order 1."""
    return (GRADIENT if gradient else VALUE)[dtype]
