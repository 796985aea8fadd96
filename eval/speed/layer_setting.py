"""An attention layer at one setting: x_BLD -> y_BLD with weights as arguments, forward and backward.

Letters: B batch, L length, D hidden.
"""

import dataclasses
from collections.abc import Callable
from typing import cast, get_args

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from eval.rows import Cell
from eval.speed.op_setting import OpSetting, layer_shape, op_setting
from eval.speed.work import arrays_of, named_arrays
from zoo.attention import Attention, LayerShape, PositionKind, build_attention
from zoo.config import require
from zoo.ops.masks import MaskSpec

Forward = Callable[..., mx.array]
Backward = Callable[..., tuple[mx.array, list[mx.array]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSetting:
    """What decides a call of a layer.

    Attributes:
        op: The op inside it, with batch size, length, dtype and whether the call is compiled.
        shape: The model around it.
    """

    op: OpSetting
    shape: LayerShape

    def layer(self) -> Attention:
        """The layer with the seed's weights, evaluated.

        Raises:
            UserError: If the mechanism cannot do what the shape asks for.
        """
        mx.random.seed(self.op.seed)
        layer = build_attention(self.op.variant, self.shape, 0)
        layer.set_dtype(self.op.dtype)
        mx.eval(layer.parameters())
        return layer

    @property
    def mask(self) -> MaskSpec:
        """Whole rows, causal or not."""
        return MaskSpec(causal=self.shape.causal)

    def weights_of(self, layer: Attention) -> list[mx.array]:
        """The layer's parameters, in the order in which `forward_of` takes them."""
        return arrays_of(layer.parameters())

    def forward_of(self, layer: Attention) -> Forward:
        """`(x_BLD, *weights) -> y_BLD`; weights are arguments, so that they have gradients and compile as inputs."""
        names = list(named_arrays(layer.parameters()))
        own = layer.parameters()

        def forward(x_BLD: mx.array, *weights: mx.array) -> mx.array:
            layer.update(tree_unflatten(list(zip(names, weights, strict=True))))
            y_BLD = layer(x_BLD, mask=self.mask)
            layer.update(own)
            return y_BLD

        return forward

    def backward_of(self, layer: Attention) -> Backward:
        """`(cotangent, x_BLD, *weights) -> (y_BLD, gradients)`, those of x and of every weight."""
        forward = self.forward_of(layer)

        def backward(cotangent_BLD: mx.array, *arrays: mx.array) -> tuple[mx.array, list[mx.array]]:
            outputs, gradients = mx.vjp(forward, list(arrays), [cotangent_BLD])
            return outputs[0], gradients

        return backward

    def hidden_states(self, *, batch_size: int | None = None, length: int | None = None) -> mx.array:
        """Standard-normal x_BLD, evaluated; of the setting's own size unless another is given."""
        generator = np.random.default_rng(self.op.seed)
        shape = (batch_size or self.op.batch_size, length or self.op.length, self.shape.hidden_size)
        x_BLD = mx.array(generator.standard_normal(shape, dtype=np.float32)).astype(self.op.dtype)
        mx.eval(x_BLD)
        return x_BLD

    def cotangent(self, *, batch_size: int | None = None, length: int | None = None) -> mx.array:
        """Random weights of the outputs, [B, L, D]; evaluated."""
        replaced = dataclasses.replace(self, op=dataclasses.replace(self.op, seed=self.op.seed + 1))
        return replaced.hidden_states(batch_size=batch_size, length=length)


def layer_setting(cell: Cell) -> LayerSetting:
    """The setting of a cell of level layer; its detail may be `positions=KIND`, and is "none" otherwise.

    Raises:
        UserError: If the variant is a hybrid, or the detail is none of these.
    """
    positions = cell.detail.removeprefix("positions=") if cell.detail else "none"
    require(positions in get_args(PositionKind), "detail", "be empty or positions=KIND", cell.detail)
    return LayerSetting(op=op_setting(cell), shape=layer_shape(cell, positions=cast(PositionKind, positions)))
