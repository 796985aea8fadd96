"""How a cell is built: one module a kind of subject."""

from collections.abc import Callable

from eval.plugins import declared
from eval.rows import Cell
from eval.speed.builders import device, layer, model, op
from eval.speed.subject import Subject


class _Builders(dict[str, Callable[[Cell], Subject]]):
    """What a cell names as its builder; those that suites bring along are imported when a cell asks for one."""

    def __missing__(self, name: str) -> Callable[[Cell], Subject]:
        further: dict[str, Callable[[Cell], Subject]] = {}
        for each in declared("BUILDERS"):
            further |= each
        return further[name]


BUILDERS = _Builders(device=device.build, op=op.build, layer=layer.build, model=model.build)
