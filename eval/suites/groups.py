"""Groups of cells that differ in their series only."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.rows import Cell
from eval.suites.series import Series


def cells_of(series: Iterable[Series], setting: Mapping[str, Any]) -> tuple[Cell, ...]:
    """One cell for each series; the first is the baseline.

    Args:
        series: In order.
        setting: All other fields of the cells.
    """
    return tuple(
        Cell.model_validate(
            {
                **setting,
                "variant": each.name,
                "attention": each.attention,
                "role": "candidate" if index else "baseline",
            }
        )
        for index, each in enumerate(series)
    )
