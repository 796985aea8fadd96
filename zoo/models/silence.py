"""A model whose attention is switched off in some layers: what it still predicts, it does without them."""

import copy
from collections.abc import Collection
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from zoo.models.build import Model


class SilentAttention(nn.Module):
    """Adds nothing to what it reads."""

    def __call__(self, x_BLD: mx.array, **_: Any) -> mx.array:
        """Zeros [B, L, D]."""
        return mx.zeros_like(x_BLD)


def silenced(model: Model, layers: Collection[int]) -> Model:
    """A copy without the attention of these layers, which shares all weights; it can read but not decode."""
    copied: Any = copy.copy(model)
    copied.layers = [copy.copy(block) for block in model.layers]
    for index in layers:
        copied.layers[index].self_attn = SilentAttention()
    return copied
