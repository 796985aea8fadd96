"""A group: cells that are timed against each other, in one process, round by round."""

import dataclasses
from collections.abc import Mapping

from eval.rows import Cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Cells to interleave.

    Attributes:
        cells: At least one; exactly one has the role "baseline", unless there is only one cell.
        memory: Whether each cell's peak is measured too, in a process of its own.
        control: Whether the baseline is timed a second time, as A/A control.
        max_rounds: Most rounds, where cells are slow; None for the run's own number.
        skipped: Cells that the suite itself leaves out, and why: identity -> reason, which becomes their row's.
    """

    cells: tuple[Cell, ...]
    memory: bool = False
    control: bool = True
    max_rounds: int | None = None
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Suite and group of the cells."""
        return f"{self.cells[0].suite}/{self.cells[0].group}"

    @property
    def baseline(self) -> Cell:
        """The cell that the others are compared with."""
        return next((cell for cell in self.cells if cell.role == "baseline"), self.cells[0])
