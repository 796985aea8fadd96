"""How a cell is built: one module a kind of subject."""

from collections.abc import Callable, Mapping

from eval.rows import Cell
from eval.speed.builders import device, hand_inlined, layer, layouts, metal_kernel_poc, model, op
from eval.speed.subject import Subject

# What a cell names as its builder.
BUILDERS: Mapping[str, Callable[[Cell], Subject]] = {
    "device": device.build,
    "op": op.build,
    "layer": layer.build,
    "model": model.build,
    "hand_inlined": hand_inlined.build,
    "layouts": layouts.build,
    "metal_kernel_poc": metal_kernel_poc.build,
}
