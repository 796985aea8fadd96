"""What a figure is: a pure function from rows to a drawing, or to the reason why there is none."""

import dataclasses
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from eval.report.figures.style import STYLE
from eval.rows import Row

# Seconds to lay out, and no more to be read.
_MOST_PANELS, _MOST_SERIES = 48, 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
    """A figure that the rows do not give.

    Attributes:
        reason: Which rows are missing.
    """

    reason: str


def crowded(num_panels: int) -> Absent | None:
    """Why a figure of so many panels is not drawn; None if it is."""
    if num_panels <= _MOST_PANELS:
        return None
    return Absent(reason=f"{num_panels} panels are more than a figure can show ({_MOST_PANELS}); report fewer rows")


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
        """Draws in the report's style, unless there are more series than anybody can tell apart."""
        names = {part.variant for row in rows if (part := row.cell or row.quality) is not None}
        if len(names) > _MOST_SERIES:
            return Absent(reason=f"{len(names)} variants are more than a figure can show ({_MOST_SERIES})")
        with mpl.rc_context(STYLE):
            return self.draw(rows)
