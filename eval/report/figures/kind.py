"""What a figure is: a pure function from rows to a drawing, or to the reason why there is none."""

import dataclasses
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from eval.report.figures.style import STYLE
from eval.rows import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
    """A figure that the rows do not give.

    Attributes:
        reason: Which rows are missing.
    """

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureKind:
    """A figure of the report.

    Attributes:
        name: Of its file.
        title: One line.
        caption: What is drawn, and what to look for.
        draw: From the rows of one device.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Row]], Figure | Absent]

    def drawn(self, rows: Sequence[Row]) -> Figure | Absent:
        """Draws in the report's style."""
        with mpl.rc_context(STYLE):
            return self.draw(rows)
