"""An attention layer with its projections: `x_BLD -> y_BLD`, between no other layers."""

import functools

import mlx.core as mx

from eval.rows import Cell, Correctness
from eval.speed.analytic import layer_bytes
from eval.speed.correctness import verdict
from eval.speed.layer_correctness import check_layer, check_layer_gradients
from eval.speed.layer_setting import layer_setting
from eval.speed.subject import Subject
from eval.speed.work import FORWARDS, work_of
from zoo.config import require

MODES = ("forward", "forward_backward")


def build(cell: Cell) -> Subject:
    """Builds a cell of level layer.

    Modes: `forward` returns y; `forward_backward` returns y and the gradients, with respect to x and every parameter,
    of the sum of y times fixed random weights. Positions are "none" unless the cell's detail is `positions=KIND`.

    Raises:
        UserError: If the variant cannot do what the cell asks for.
    """
    require(cell.mode in MODES, "modes", "suit a layer", cell.mode, allowed=MODES)
    setting = layer_setting(cell)
    layer = setting.layer()
    inputs = [setting.hidden_states(), *setting.weights_of(layer)]
    flops = cell.batch_size * layer.flops(query_length=cell.length, key_length=cell.length)
    tokens = cell.batch_size * cell.length

    if cell.mode == "forward":
        forward = setting.forward_of(layer)
        # Eager, the layer is called as its users call it: what `forward` does to its weights is no part of it.
        eager = functools.partial(layer, inputs[0], mask=setting.mask)
        call_forward = functools.partial(mx.compile(forward), *inputs) if cell.compiled else eager
        work = work_of([forward(*inputs)], useful_flops=flops, tokens=tokens)
        return Subject(
            call=call_forward,
            check=lambda: verdict(check_layer(setting, layer, call_forward)),
            work=work,
            exact_class=layer.capabilities.exact_class,
            analytic_bytes=layer_bytes(setting, layer, work, gradient=False),
        )

    backward, given = setting.backward_of(layer), [setting.cotangent(), *inputs]
    call_backward = functools.partial(mx.compile(backward) if cell.compiled else backward, *given)

    def check() -> Correctness:
        findings = check_layer(setting, layer, lambda: call_backward()[0])
        return verdict(findings + check_layer_gradients(setting, layer, lambda: call_backward()[1]))

    work = work_of(backward(*given), useful_flops=flops * FORWARDS[cell.mode], tokens=tokens)
    return Subject(
        call=call_backward,
        check=check,
        work=work,
        exact_class=layer.capabilities.exact_class,
        analytic_bytes=layer_bytes(setting, layer, work, gradient=True),
    )
