"""An attention layer with its projections: `x_BLD -> y_BLD`, between no other layers.

Letters: B batch, L length, D hidden.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast, get_args

import mlx.core as mx
from mlx.utils import tree_unflatten

from eval.bench import Workload
from eval.checks import verdict
from eval.checks.layer import check_layer
from eval.rows import Cell, Correctness
from eval.workloads import (
    FORWARDS,
    arrays_of,
    computed_function,
    named_arrays,
    random_normal,
    with_gradients,
    work_of,
)
from eval.workloads.op import MODES, OpSetting, layer_shape, op_bytes, single_variant
from zoo.attention import Attention, PositionKind, build_attention
from zoo.config import require


def build(cell: Cell) -> Workload:
    """Builds a cell of level layer.

    Modes: `forward` returns y; `forward_backward` returns y and the gradients, with respect to x and every parameter,
    of the sum of y times fixed random weights. Positions are "none" unless the cell's detail is `positions=KIND`.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    require(cell.mode in MODES, "modes", "suit a layer", cell.mode, allowed=MODES)
    setting = layer_setting(cell)
    layer, gradient = setting.layer(), cell.mode == "forward_backward"
    weights, x_BLD = arrays_of(layer.parameters()), setting.hidden_states()
    function: Callable[..., Any] = setting.function_of(layer)
    given = [x_BLD, *weights]
    if gradient:
        function, given = with_gradients(function), [setting.output_weights(), *given]
    # Eager, the layer is called as its users call it: what `function_of` does to its weights is no part of it.
    as_users_call_it = functools.partial(layer, x_BLD, mask=setting.mask)
    in_whole = functools.partial(mx.compile(function) if cell.compiled else function, *given)
    call: Callable[[], Any] = in_whole if cell.compiled or gradient else as_users_call_it

    def check() -> Correctness:
        y_BLD, gradients = call() if gradient else (call(), None)
        return verdict(check_layer(setting, layer, y_BLD, gradients))

    flops = cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length)
    work = work_of(function(*given), useful_flops=flops * FORWARDS[cell.mode], tokens=cell.batch_size * cell.length)
    # The op's, with x, y and the weights; backward twice as many of these.
    own = (2 * x_BLD.nbytes + sum(array.nbytes for array in weights)) * (2 if gradient else 1)
    return Workload(
        call=call,
        check=check,
        work=work,
        function=computed_function(cell, layer.capabilities.exact_class),
        analytic_bytes=own + op_bytes(setting, gradient=gradient),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSetting(OpSetting):
    """What decides a call of a layer: that of its op, and the positions of the shape."""

    def layer(self) -> Attention:
        """The layer with the seed's weights, evaluated.

        Raises:
            UserError: If the mechanism cannot do what the shape asks for.
        """
        mx.random.seed(self.cell.seed)
        layer = build_attention(self.variant, self.shape, 0)
        layer.set_dtype(self.dtype)
        mx.eval(layer.parameters())
        return layer

    def function_of(self, layer: Attention) -> Callable[..., mx.array]:
        """`(x_BLD, *weights) -> y_BLD`; weights are arguments, so that they have gradients and compile as inputs."""
        own = layer.parameters()
        names = list(named_arrays(own))

        def function(x_BLD: mx.array, *weights: mx.array) -> mx.array:
            layer.update(tree_unflatten(list(zip(names, weights, strict=True))))
            y_BLD = layer(x_BLD, mask=self.mask)
            layer.update(own)
            return y_BLD

        return function

    def hidden_states(self) -> mx.array:
        """Standard-normal x_BLD, evaluated."""
        return self._normal(self.cell.seed)

    def output_weights(self) -> mx.array:
        """Random weights of the outputs, [B, L, D]; evaluated."""
        return self._normal(self.cell.seed + 1)

    def _normal(self, seed: int) -> mx.array:
        sizes = self.cell.batch_size, self.cell.length, self.shape.hidden_size
        return random_normal(*sizes, seed=seed, dtype=self.dtype)


def layer_setting(cell: Cell) -> LayerSetting:
    """The setting of a cell of level layer; its detail may be `positions=KIND`, and is "none" otherwise.

    Raises:
        UserError: If the variant is a hybrid or cannot do what the cell asks for, or the detail is none of these.
    """
    positions = cell.detail.removeprefix("positions=") if cell.detail else "none"
    require(positions in get_args(PositionKind), "detail", "be empty or positions=KIND", cell.detail)
    shape = layer_shape(cell, positions=cast(PositionKind, positions))
    setting = LayerSetting(variant=single_variant(cell), shape=shape, cell=cell)
    build_attention(setting.variant, shape, 0)
    return setting
