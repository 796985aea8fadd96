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
from eval.checks import tolerance, values_finding, verdict
from eval.replications.wrapper import projections
from eval.rows import Cell, Correctness
from eval.suites import Suite, over_baseline
from eval.suites.series import published_series
from eval.workloads import computed_function, work_of
from eval.workloads.layer import layer_setting
from zoo.config import require
from zoo.runtime.backend import parse_dtype

NAME = "layouts"
LENGTH, HIDDEN_SIZE, NUM_HEADS, BATCH_SIZES = 32, 512, 8, (1, 4)
SUBJECTS = ("linear", "attention")
_NATIVE, _SEQUENCE_FIRST = "(B,L,D) native", "(L,B,D) native"


def _view(x_BLD: mx.array) -> mx.array:
    return x_BLD.transpose(1, 0, 2)


def _contiguous(x_BLD: mx.array) -> mx.array:
    return mx.contiguous(_view(x_BLD))


def _reshaped(x_BLD: mx.array) -> mx.array:
    B, L, D = x_BLD.shape
    return _view(x_BLD).reshape(L, B, D)


def _stored(x_BLD: mx.array) -> mx.array:
    """Sequence-first in memory, whatever MLX makes of views."""
    return mx.array(np.ascontiguousarray(np.array(x_BLD.astype(mx.float32)).transpose(1, 0, 2))).astype(x_BLD.dtype)


# Name -> how it comes from x_BLD; every one but the first is [L, B, D].
LAYOUTS: Mapping[str, Callable[[mx.array], mx.array]] = {
    _NATIVE: lambda x_BLD: x_BLD,
    _SEQUENCE_FIRST: _stored,
    "transposed view": _view,
    "transposed, contiguous": _contiguous,
    "transposed, reshaped": _reshaped,
}


def plan() -> list[Group]:
    """One group for each subject and batch size."""
    sizes = {"length": LENGTH, "num_heads": NUM_HEADS, "head_dim": HIDDEN_SIZE // NUM_HEADS, "hidden_size": HIDDEN_SIZE}
    place: dict[str, Any] = {"suite": NAME, "builder": NAME, "level": "layer", "mode": "forward", **sizes}
    attention = published_series("mha").attention
    found = []
    for subject, batch_size in itertools.product(SUBJECTS, BATCH_SIZES):
        cells = tuple(
            Cell(
                **place,
                group=f"{subject} B={batch_size}",
                variant=layout,
                attention=attention if subject == "attention" else None,
                role="baseline" if layout == _NATIVE else "candidate",
                batch_size=batch_size,
                causal=False,
                compiled=False,
                detail=f"{subject}: {layout}",
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
    subject, _, layout = cell.detail.partition(": ")
    require(subject in SUBJECTS, "detail", "begin with what meets the layout", cell.detail, allowed=SUBJECTS)
    require(layout in LAYOUTS, "detail", "end with a layout", cell.detail, allowed=LAYOUTS)
    require(cell.mode == "forward", "modes", "suit layouts", cell.mode, allowed=["forward"])
    require(not cell.causal, "causal", "be false for layouts", cell.causal)
    return _linear(cell, layout) if subject == "linear" else _attention(cell, layout)


def _linear(cell: Cell, layout: str) -> Workload:
    D = cell.num_heads * cell.head_dim if cell.hidden_size is None else cell.hidden_size
    dtype = parse_dtype(cell.dtype)
    generator = np.random.default_rng(cell.seed)
    shape = (cell.batch_size, cell.length, D)
    x_BLD = mx.array(generator.standard_normal(shape, dtype=np.float32)).astype(dtype)
    weight = mx.array(generator.standard_normal((D, D), dtype=np.float32) / D**0.5).astype(dtype)
    given = LAYOUTS[layout](x_BLD)
    mx.eval(x_BLD, weight, given)

    def project(x: mx.array, weight: mx.array) -> mx.array:
        return x @ weight.T

    call = functools.partial(mx.compile(project) if cell.compiled else project, given, weight)
    tokens = cell.batch_size * cell.length
    return Workload(
        call=call,
        check=lambda: _verdict(call(), x_BLD @ weight.T, exchanged=layout != _NATIVE),
        work=work_of([project(given, weight)], useful_flops=2 * tokens * D * D, tokens=tokens),
        function=computed_function(cell, "linear layer"),
    )


def _attention(cell: Cell, layout: str) -> Workload:
    setting = layer_setting(cell.model_copy(update={"detail": ""}))
    layer, x_BLD = setting.layer(), setting.hidden_states()
    B, L, N, H = cell.batch_size, cell.length, cell.num_heads, cell.head_dim
    stored_LBD = _stored(x_BLD)
    mx.eval(stored_LBD)

    def heads_first(y_LBD: mx.array) -> mx.array:
        return y_LBD.reshape(L, B, N, H).transpose(1, 2, 0, 3)

    def sequence_first(x_LBD: mx.array, q: mx.array, k: mx.array, v: mx.array, o: mx.array) -> mx.array:
        q_BNLH, k_BNLH, v_BNLH = (heads_first(x_LBD @ weight.T) for weight in (q, k, v))
        y_BNLH = mx.fast.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, scale=H**-0.5)
        return y_BNLH.transpose(2, 0, 1, 3).reshape(L, B, N * H) @ o.T

    def given_batch_first(x_BLD: mx.array, *weights: mx.array) -> mx.array:
        return sequence_first(LAYOUTS[layout](x_BLD), *weights).transpose(1, 0, 2)

    def native(x_BLD: mx.array) -> mx.array:
        return layer(x_BLD, mask=setting.mask)

    function: Callable[..., mx.array]
    arguments: tuple[mx.array, ...]
    if layout == _NATIVE:
        function, arguments = native, (x_BLD,)
    elif layout == _SEQUENCE_FIRST:
        function, arguments = sequence_first, (stored_LBD, *projections(layer))
    else:
        function, arguments = given_batch_first, (x_BLD, *projections(layer))
    call = functools.partial(mx.compile(function) if cell.compiled else function, *arguments)
    return Workload(
        call=call,
        check=lambda: _verdict(call(), native(x_BLD), exchanged=layout == _SEQUENCE_FIRST),
        work=work_of([function(*arguments)], useful_flops=B * layer.flops(query_length=L, key_length=L), tokens=B * L),
        function=computed_function(cell, layer.capabilities.exact_class),
    )


def _verdict(actual: mx.array, expected_BLD: mx.array, *, exchanged: bool) -> Correctness:
    """Compares with the native layout's output."""
    actual_BLD = actual.transpose(1, 0, 2) if exchanged else actual
    check = "difference to the native layout's output"
    return verdict([values_finding(check, actual_BLD, expected_BLD, tolerance(actual.dtype))])


SUITE = Suite(name=NAME, plan=plan, summary=over_baseline)
BUILDERS = {NAME: build}
