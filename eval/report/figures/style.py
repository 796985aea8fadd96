"""How every figure looks: colours that can be told apart on light and on dark, text in the page's own colour."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Stands for the page's own text colour: `eval.report.svg` writes `currentColor` in its place.
INK = "#0a0b0c"
# Contrast at least 3 to 1 on white and on near-black (WCAG's figure for graphics); a test holds them to it.
PALETTE = ("#3b82d6", "#d4691a", "#2b9a66", "#d6457b", "#8b6ad9", "#12929e", "#a1782b", "#6b8e23", "#e0533d", "#7d8590")
LINESTYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_MARKER_STEP = 3
# Bad, good: of points beside the line they should lie on.
WARNING, FINE = "#e0533d", "#2b9a66"
STATUS_MARKERS: Mapping[str, str] = {
    "skipped": "x",
    "incorrect": "X",
    "out_of_memory": "v",
    "crashed": "*",
    "unavailable": "_",
}
# Widest over narrowest value, below which an axis is linear, and above which it has decades only.
NARROW, WIDE = 3.0, 500.0
MOST_TICKS = 16
BAND_ALPHA = 0.15
GRID_ALPHA = 0.16

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": INK,
    "grid.alpha": GRID_ALPHA,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    # MLX's own choice would cut paths of many points, by an amount that depends on the size.
    "path.simplify": False,
    # A name is a name: $x_1$ is no formula.
    "text.parse_math": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """How a series is told from the others: never by its colour alone.

    Attributes:
        colour: Of the palette.
        line: Line style.
        marker: Of its points.
    """

    colour: str
    line: str
    marker: str


def looks() -> Iterator[Look]:
    """One for each series; all colours before any comes again, and then with another marker and line."""
    for turn in count():
        line = LINESTYLES[turn % len(LINESTYLES)]
        # The step has no factor in common with their number, so that every colour meets every marker.
        markers = MARKERS[_MARKER_STEP * turn % len(MARKERS) :] + MARKERS[: _MARKER_STEP * turn % len(MARKERS)]
        for colour, marker in zip(PALETTE, markers, strict=True):
            yield Look(colour=colour, line=line, marker=marker)


def named_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, the same wherever the name is drawn."""
    return dict(zip(dict.fromkeys(names), looks(), strict=False))


def length_axis(axes: Axes, lengths: Sequence[float], label: str = "length (tokens)") -> None:
    """A logarithmic axis with the measured lengths, or as many of them as can be read, as its ticks."""
    axes.set_xscale("log", base=2)
    ticks = sorted(set(lengths))
    ticks = ticks[:: -(-len(ticks) // MOST_TICKS) or 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def log_ticks(axes: Axes, which: str) -> None:
    """A logarithmic axis of plain numbers; a linear one where decades do not tell the values apart.

    It is linear too where a value is not above 0, and has no ticks where there is no value.
    """
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    if not _has_values(axes, which):
        axis.set_major_locator(NullLocator())
    elif not _is_positive(axes, which) or (low > 0 and high / low < NARROW):
        axis.set_major_locator(MaxNLocator(6))
    else:
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
        low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
        digits = (1.0, 2.0, 5.0) if high / low < WIDE else (1.0,)
        axis.set_major_locator(LogLocator(base=10, subs=digits))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain_number))


def byte_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis of sizes, with powers of two as its ticks; a linear one where these do not tell them apart."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    if not _has_values(axes, which):
        axis.set_major_locator(NullLocator())
    elif not _is_positive(axes, which) or (low > 0 and high / low < NARROW):
        axis.set_major_locator(MaxNLocator(6))
    else:
        (axes.set_yscale if which == "y" else axes.set_xscale)("log", base=2)
        axis.set_major_locator(LogLocator(base=2, numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(byte_ticks))


def _has_values(axes: Axes, which: str) -> bool:
    low, high = axes.dataLim.intervaly if which == "y" else axes.dataLim.intervalx
    return bool(np.isfinite([low, high]).all())


def _is_positive(axes: Axes, which: str) -> bool:
    low, _ = axes.dataLim.intervaly if which == "y" else axes.dataLim.intervalx
    return _has_values(axes, which) and bool(low > 0)


def plain_number(value: float, _: object = None) -> str:
    """A tick."""
    return f"{value:g}"


def byte_ticks(value: float, _: object = None) -> str:
    """A tick of a size."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def status_key(figure: Figure, statuses: Sequence[str]) -> None:
    """Says below the figure what the marks of missing values mean."""
    present = [status for status in STATUS_MARKERS if status in statuses]
    if not present:
        return
    handles = [
        Line2D([], [], color=INK, linestyle="none", marker=STATUS_MARKERS[status], label=status.replace("_", " "))
        for status in present
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), title=None)
