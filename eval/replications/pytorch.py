"""PyTorch issue 181725: what a layer costs beside the same code by hand, and what the layout of its input costs.

`nn.MultiheadAttention(batch_first=True)` exchanges batch and sequence, projects, and exchanges them back; at B=1 the
exchanged view has strides that look contiguous, which on Apple's GPU sends PyTorch down a slow path
(https://github.com/pytorch/pytorch/issues/181725). Here the same inputs meet MLX, at B=1 and B=4.

Suite `wrapper`: this project's layer against equal projections written around MLX's attention by hand. Outputs must be
equal to the last bit, so that every difference in time is overhead. Suite `layouts`: five layouts of one input. The
linear layer meets an input that lies in its layout already, as the issue isolates it. The attention layer brings x_BLD
into the layout within the call, as that module does; its native layout is this project's own layer, which exchanges
nothing. Outputs are equal but for the rounding of matrix products in another order.

Letters: B batch, L length, D hidden, N query heads, H head_dim.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from eval.bench import Group, Workload
from eval.checks import Finding, tolerance, values_finding
from eval.rows import Cell
from eval.suites import Suite, over_baseline, over_groups
from eval.suites.series import cells_of, published_series
from eval.workloads import Setting, computed_function, scalar, workload_of
from eval.workloads.attention import attention_setting
from zoo.attention import Attention
from zoo.attention.projected import ProjectedAttention
from zoo.config import require

BATCH_SIZES = (1, 4)
# (L, D, N), for self-attention: query lengths and widths of the table, some of whose shapes attend across.
SHAPES = ((32, 512, 8), (64, 512, 8), (128, 512, 8), (256, 512, 8), (64, 768, 12), (512, 512, 8))
LAYER, INLINED, HAND_INLINED = "mha", "mha_hand_inlined", "hand_inlined"
LAYERS = ("linear", "attention")
_NATIVE, _SEQUENCE_FIRST = "(B,L,D) native", "(L,B,D) native"


def _stored(x_BLD: mx.array) -> mx.array:
    """Sequence-first in memory, whatever MLX makes of views."""
    return mx.array(np.ascontiguousarray(np.array(x_BLD.astype(mx.float32)).transpose(1, 0, 2))).astype(x_BLD.dtype)


# Name -> how it comes from x_BLD; every one but the first is [L, B, D].
LAYOUTS: Mapping[str, Callable[[mx.array], mx.array]] = {
    _NATIVE: lambda x_BLD: x_BLD,
    _SEQUENCE_FIRST: _stored,
    "transposed view": lambda x_BLD: x_BLD.transpose(1, 0, 2),
    "transposed, contiguous": lambda x_BLD: mx.contiguous(x_BLD.transpose(1, 0, 2)),
    "transposed, reshaped": lambda x_BLD: x_BLD.transpose(1, 0, 2).reshape(x_BLD.shape[1], x_BLD.shape[0], -1),
}


def _shape(L: int, D: int, N: int, batch_size: int) -> dict[str, Any]:
    sizes = {"batch_size": batch_size, "length": L, "num_heads": N, "head_dim": D // N, "hidden_size": D}
    return {"level": "layer", "mode": "forward", "causal": False, **sizes}


def plan_wrapper() -> list[Group]:
    """One group for each shape, batch size and way to run."""
    found = []
    for (L, D, N), B, compiled in itertools.product(SHAPES, BATCH_SIZES, (True, False)):
        group = f"L={L} D={D} N={N} B={B} {'compiled' if compiled else 'eager'}"
        setting = {"suite": "wrapper", "group": group, "compiled": compiled, **_shape(L, D, N, B)}
        (layer,) = cells_of([published_series(LAYER)], **setting)
        inlined = layer.model_copy(update={"builder": HAND_INLINED, "variant": INLINED})
        found.append(Group(cells=(inlined, layer.model_copy(update={"role": "candidate"}))))
    return found


def plan_layouts() -> list[Group]:
    """One group for each layer and batch size, of the first shape."""
    found = []
    for kind, B in itertools.product(LAYERS, BATCH_SIZES):
        attention = published_series(LAYER).attention if kind == "attention" else None
        place = {"suite": "layouts", "builder": "layouts", "group": f"{kind} B={B}", **_shape(*SHAPES[0], B)}
        place |= {"attention": attention, "compiled": False}
        cells = [Cell(**place, variant=layout, detail=f"{kind}: {layout}") for layout in LAYOUTS]
        native = cells[0].model_copy(update={"role": "baseline"})
        found.append(Group(cells=(native, *cells[1:])))
    return found


def build_inlined(cell: Cell) -> Workload:
    """Builds the code of `mha` with the registry layer's own weights; only forward, with no mask and no positions.

    The check asks for no difference at all to the registry's layer, run as the cell says: compiled or not.

    Raises:
        UserError: If the cell asks for anything else.
    """
    _require_plain(cell)
    require(not cell.detail, "detail", "be empty", cell.detail)
    setting = attention_setting(cell)
    named = f"{setting.variant.mechanism}, {setting.variant.implementation}"
    require(named == "softmax, fused", "variants", "be what was written out by hand", named, allowed=["softmax, fused"])
    layer, x_BLD = setting.layer(), setting.hidden_states()
    registry = functools.partial(layer, mask=setting.mask)
    given = [x_BLD, *projections(layer)]

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        theirs_BLD = (mx.compile(registry) if cell.compiled else registry)(x_BLD)
        difference = mx.abs(timed(*given).astype(mx.float32) - theirs_BLD.astype(mx.float32)).max()
        return [Finding(check="difference to the registry's layer", error=scalar(difference), tolerance=0.0)]

    return _like_layer(cell, layer, inlined_layer(cell.num_heads, cell.head_dim), given, check)


def build_layout(cell: Cell) -> Workload:
    """Builds a cell whose detail is `LAYER: LAYOUT`; only forward, without a mask.

    Raises:
        UserError: If the cell asks for anything else.
    """
    kind, _, layout = cell.detail.partition(": ")
    require(kind in LAYERS, "detail", "begin with what meets the layout", cell.detail, allowed=LAYERS)
    require(layout in LAYOUTS, "detail", "end with a layout", cell.detail, allowed=LAYOUTS)
    _require_plain(cell)
    return _linear(cell, layout) if kind == "linear" else _attention(cell, layout)


def _require_plain(cell: Cell) -> None:
    require(cell.mode == "forward", "modes", f"suit {cell.builder}", cell.mode, allowed=["forward"])
    require(not cell.causal, "causal", f"be false for {cell.builder}", cell.causal)


def _like_layer(
    cell: Cell,
    layer: Attention,
    function: Callable[..., mx.array],
    given: Sequence[mx.array],
    check: Callable[[Callable[..., mx.array]], list[Finding]],
) -> Workload:
    """The workload of a function that computes what a layer computes."""
    flops = cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length)
    computes = computed_function(cell, layer.capabilities.exact_class)
    return workload_of(cell, function, given, check, computes=computes, useful_flops=flops)


def _linear(cell: Cell, layout: str) -> Workload:
    B, L, D = cell.batch_size, cell.length, cell.hidden_size or cell.num_heads * cell.head_dim
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
    native = functools.partial(layer, mask=setting.mask)
    sequence_first = inlined_layer(cell.num_heads, cell.head_dim, sequence_first=True)

    def exchanged_and_back(x_BLD: mx.array, *weights: mx.array) -> mx.array:
        return sequence_first(LAYOUTS[layout](x_BLD), *weights).transpose(1, 0, 2)

    function: Callable[..., mx.array] = exchanged_and_back
    given = [x_BLD, *projections(layer)]
    if layout == _NATIVE:
        function, given = native, [x_BLD]
    elif layout == _SEQUENCE_FIRST:
        function, given[0] = sequence_first, _stored(x_BLD)
    mx.eval(given)

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        return _difference(timed(*given), native(x_BLD), exchanged=layout == _SEQUENCE_FIRST)

    return _like_layer(cell, layer, function, given, check)


def _difference(actual: mx.array, expected_BLD: mx.array, *, exchanged: bool) -> list[Finding]:
    actual_BLD = actual.transpose(1, 0, 2) if exchanged else actual
    check = "difference to the native layout's output"
    return [values_finding(check, actual_BLD, expected_BLD, tolerance(actual.dtype))]


def projections(layer: Attention) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """The weights of q, k, v and o, without biases; [outputs, inputs] each."""
    assert isinstance(layer, ProjectedAttention), "a softmax layer projects"
    return layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight, layer.o_proj.weight


def inlined_layer(num_heads: int, head_dim: int, *, sequence_first: bool = False) -> Callable[..., mx.array]:
    """`(x_BLD, q, k, v, o) -> y_BLD` as a careful user would write it; or from x_LBD to y_LBD."""
    there, back = ((1, 2, 0, 3), (2, 0, 1, 3)) if sequence_first else ((0, 2, 1, 3), (0, 2, 1, 3))

    def attend(x: mx.array, q: mx.array, k: mx.array, v: mx.array, o: mx.array) -> mx.array:
        outer, inner, _ = x.shape
        q_BNLH, k_BNLH, v_BNLH = (
            (x @ weight.T).reshape(outer, inner, num_heads, head_dim).transpose(*there) for weight in (q, k, v)
        )
        y_BNLH = mx.fast.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, scale=head_dim**-0.5)
        return y_BNLH.transpose(*back).reshape(outer, inner, num_heads * head_dim) @ o.T

    return attend


LAYOUTS_SUITE = Suite(name="layouts", plan=plan_layouts, summary=over_baseline)
WRAPPER_SUITE = Suite(name="wrapper", plan=plan_wrapper, summary=over_groups)
BUILDERS = {HAND_INLINED: build_inlined, "layouts": build_layout}
