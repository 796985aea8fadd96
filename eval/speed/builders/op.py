"""A mechanism's pure op, without projections: `op(*arrays, spec) -> y_BNLH`."""

import functools
from collections.abc import Callable
from typing import Any

from eval.rows import Cell
from eval.speed.analytic import op_bytes
from eval.speed.correctness import check_op, verdict
from eval.speed.op_setting import layer_shape, op_setting
from eval.speed.subject import Subject
from eval.speed.work import FORWARDS, work_of
from zoo.attention import build_attention
from zoo.config import require

MODES = ("forward", "forward_backward")


def build(cell: Cell) -> Subject:
    """Builds a cell of level op.

    Modes: `forward` returns y; `forward_backward` returns y and the gradients, with respect to every input array, of
    the sum of y times fixed random weights.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    require(cell.mode in MODES, "modes", "suit an op", cell.mode, allowed=MODES)
    setting = op_setting(cell)
    gradient = cell.mode == "forward_backward"
    arrays = setting.inputs()
    given = [setting.cotangent(), *arrays] if gradient else arrays
    eager: Callable[..., Any] = setting.eager_backward() if gradient else setting.eager_forward()
    timed: Callable[..., Any] = setting.backward() if gradient else setting.forward()
    layer = build_attention(setting.variant, layer_shape(cell), 0)
    flops = layer.mixing_flops(query_length=cell.length, key_length=cell.length)
    work = work_of(
        eager(*given),
        useful_flops=None if flops is None else cell.batch_size * flops * FORWARDS[cell.mode],
        tokens=cell.batch_size * cell.length,
    )
    return Subject(
        call=functools.partial(timed, *given),
        check=lambda: verdict(check_op(setting, gradient=gradient, timed=timed)),
        work=work,
        exact_class=setting.variant.capabilities.exact_class,
        analytic_bytes=op_bytes(setting, work, gradient=gradient),
    )
