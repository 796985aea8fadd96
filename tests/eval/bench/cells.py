"""Cells and groups for the runner's tests."""

from eval.bench import Group
from eval.rows import Cell


def planted(variant: str, *, role: str = "candidate", length: int = 5, group: str = "planted") -> Cell:
    """A cell of the builders in `planted` and `clocked`."""
    return Cell.model_validate(
        {
            "suite": "tests",
            "group": group,
            "builder": "planted",
            "variant": variant,
            "role": role,
            "level": "device",
            "mode": "null",
            "length": length,
        }
    )


def planted_group(*variants: str, group: str = "planted", memory: bool = False, control: bool = True) -> Group:
    """The first is the baseline."""
    first, *others = variants
    cells = (planted(first, role="baseline", group=group), *(planted(name, group=group) for name in others))
    return Group(cells=cells, memory=memory, control=control)
