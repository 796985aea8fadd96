"""PyTorch issue 181725: five layouts of one input, for a linear layer and for attention that works sequence-first.

`nn.MultiheadAttention(batch_first=True)` exchanges batch and sequence, projects, and exchanges them back; at B=1 the
exchanged view has strides that look contiguous, which on Apple's GPU sends PyTorch down a slow path
(https://github.com/pytorch/pytorch/issues/181725). Here the same inputs meet MLX, at B=1 and B=4. The linear layer
meets an input that was brought into its layout beforehand, as the issue isolates it. The attention layer gets x_BLD
and brings it into the layout within the call, as that module does; its native layout is this project's own layer,
which never exchanges anything. All give equal outputs, but for the rounding of matrix products in another order.

Letters: B batch, L length, D hidden, N query heads, H head_dim.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from eval.bench import Group, Workload
from eval.checks import Finding, tolerance, values_finding
from eval.replications.wrapper import inlined_layer, projections
from eval.rows import Cell
from eval.suites import Suite, over_baseline
from eval.suites.series import published_series
from eval.workloads import Setting, computed_function, workload_of
from eval.workloads.attention import attention_setting
from zoo.config import require

NAME = "layouts"
LENGTH, HIDDEN_SIZE, NUM_HEADS, BATCH_SIZES = 32, 512, 8, (1, 4)
LAYERS = ("linear", "attention")
_NATIVE, _SEQUENCE_FIRST = "(B,L,D) native", "(L,B,D) native"


def _reshaped(x_BLD: mx.array) -> mx.array:
    B, L, D = x_BLD.shape
    return x_BLD.transpose(1, 0, 2).reshape(L, B, D)


def _stored(x_BLD: mx.array) -> mx.array:
    """Sequence-first in memory, whatever MLX makes of views."""
    return mx.array(np.ascontiguousarray(np.array(x_BLD.astype(mx.float32)).transpose(1, 0, 2))).astype(x_BLD.dtype)


# Name -> how it comes from x_BLD; every one but the first is [L, B, D].
LAYOUTS: Mapping[str, Callable[[mx.array], mx.array]] = {
    _NATIVE: lambda x_BLD: x_BLD,
    _SEQUENCE_FIRST: _stored,
    "transposed view": lambda x_BLD: x_BLD.transpose(1, 0, 2),
    "transposed, contiguous": lambda x_BLD: mx.contiguous(x_BLD.transpose(1, 0, 2)),
    "transposed, reshaped": _reshaped,
}


def plan() -> list[Group]:
    """One group for each layer and batch size."""
    sizes = {"length": LENGTH, "num_heads": NUM_HEADS, "head_dim": HIDDEN_SIZE // NUM_HEADS, "hidden_size": HIDDEN_SIZE}
    place: dict[str, Any] = {"suite": NAME, "builder": NAME, "level": "layer", "mode": "forward", **sizes}
    attention = published_series("mha").attention
    found = []
    for kind, batch_size in itertools.product(LAYERS, BATCH_SIZES):
        cells = tuple(
            Cell(
                **place,
                group=f"{kind} B={batch_size}",
                variant=layout,
                attention=attention if kind == "attention" else None,
                role="baseline" if layout == _NATIVE else "candidate",
                batch_size=batch_size,
                causal=False,
                compiled=False,
                detail=f"{kind}: {layout}",
            )
            for layout in LAYOUTS
        )
        found.append(Group(cells=cells))
    return found


def build(cell: Cell) -> Workload:
    """Builds a cell whose detail is `SUBJECT: LAYOUT`; only forward, without a mask.

    Raises:
        UserError: If the cell asks for anything else.
    """
    kind, _, layout = cell.detail.partition(": ")
    require(kind in LAYERS, "detail", "begin with what meets the layout", cell.detail, allowed=LAYERS)
    require(layout in LAYOUTS, "detail", "end with a layout", cell.detail, allowed=LAYOUTS)
    require(cell.mode == "forward", "modes", "suit layouts", cell.mode, allowed=["forward"])
    require(not cell.causal, "causal", "be false for layouts", cell.causal)
    return _linear(cell, layout) if kind == "linear" else _attention(cell, layout)


def _linear(cell: Cell, layout: str) -> Workload:
    B, L = cell.batch_size, cell.length
    D = cell.num_heads * cell.head_dim if cell.hidden_size is None else cell.hidden_size
    setting = Setting(cell=cell)
    x_BLD, weight = setting.normal(B, L, D), setting.normal(D, D, stream=1) / D**0.5
    given = [LAYOUTS[layout](x_BLD), weight]
    mx.eval(given)

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        return _difference(timed(*given), x_BLD @ weight.T, exchanged=layout != _NATIVE)

    function, flops = computed_function(cell, "linear layer"), 2 * B * L * D * D
    return workload_of(cell, lambda x, weight: x @ weight.T, given, check, computes=function, useful_flops=flops)


def _attention(cell: Cell, layout: str) -> Workload:
    setting = attention_setting(cell.model_copy(update={"detail": ""}))
    layer, x_BLD = setting.layer(), setting.hidden_states()
    sequence_first = inlined_layer(cell.num_heads, cell.head_dim, sequence_first=True)

    def exchanged_and_back(x_BLD: mx.array, *weights: mx.array) -> mx.array:
        return sequence_first(LAYOUTS[layout](x_BLD), *weights).transpose(1, 0, 2)

    native = functools.partial(layer, mask=setting.mask)
    function: Callable[..., mx.array] = exchanged_and_back
    given = [x_BLD, *projections(layer)]
    if layout == _NATIVE:
        function, given = native, [x_BLD]
    elif layout == _SEQUENCE_FIRST:
        function, given = sequence_first, [_stored(x_BLD), *projections(layer)]
    mx.eval(given)

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        return _difference(timed(*given), native(x_BLD), exchanged=layout == _SEQUENCE_FIRST)

    return workload_of(
        cell,
        function,
        given,
        check,
        computes=computed_function(cell, layer.capabilities.exact_class),
        useful_flops=cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length),
    )


def _difference(actual: mx.array, expected_BLD: mx.array, *, exchanged: bool) -> list[Finding]:
    actual_BLD = actual.transpose(1, 0, 2) if exchanged else actual
    check = "difference to the native layout's output"
    return [values_finding(check, actual_BLD, expected_BLD, tolerance(actual.dtype))]


SUITE = Suite(name=NAME, plan=plan, summary=over_baseline)
BUILDERS = {NAME: build}
