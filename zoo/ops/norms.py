"""Norms along the last axis.

    rms_norm(x)   = x / sqrt(mean(x²) + eps) · weight                              Zhang and Sennrich,
                                                                                   https://arxiv.org/abs/1910.07467
    layer_norm(x) = (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias        Ba et al.,
                                                                                   https://arxiv.org/abs/1607.06450

In float32 on a CPU by the package of kernels where it is there, 4 to 7 times as fast as MLX; otherwise by MLX's own.
"""

import mlx.core as mx

from zoo.runtime.native import kernels_for


def rms_norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    """RMSNorm.

    Args:
        x: Any shape with an axis.
        weight: As long as the last axis, or None for ones.
        eps: What is added to the mean square.

    Returns:
        The shape and dtype of x.
    """
    kernels = kernels_for(x, weight)
    y: mx.array = mx.fast.rms_norm(x, weight, eps) if kernels is None else kernels.rms_norm(x, weight, eps)
    return y


def layer_norm(x: mx.array, weight: mx.array | None, bias: mx.array | None, eps: float) -> mx.array:
    """LayerNorm.

    Args:
        x: Any shape with an axis.
        weight: As long as the last axis, or None for ones.
        bias: As long as the last axis, or None for zeros.
        eps: What is added to the variance.

    Returns:
        The shape and dtype of x.
    """
    kernels = kernels_for(x, weight, bias)
    if kernels is None:
        return mx.fast.layer_norm(x, weight, bias, eps)
    y: mx.array = kernels.layer_norm(x, weight, bias, eps)
    return y
