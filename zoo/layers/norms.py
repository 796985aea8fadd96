"""MLX's norm layers, parameters and all, computed by `zoo.ops.norms`."""

import mlx.core as mx
import mlx.nn as nn

from zoo.ops.norms import layer_norm, rms_norm


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm along the last axis, with a weight."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape, kept."""
        return rms_norm(x, self["weight"], self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer norm along the last axis, with a weight and a bias where it has them."""

    def __call__(self, x: mx.array) -> mx.array:
        """Any shape, kept."""
        return layer_norm(x, self.get("weight"), self.get("bias"), self.eps)
