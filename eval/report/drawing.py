"""How every figure looks, and how it becomes SVG: equal bytes for equal rows, colours for light and for dark pages."""

import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from eval.rows import Row

# Stands for the page's own text colour: `svg_text` writes `currentColor` in its place.
INK = "#0a0b0c"
# Contrast at least 3 to 1 on white and on near-black (WCAG's figure for graphics); a test holds them to it.
PALETTE = ("#3b82d6", "#d4691a", "#2b9a66", "#d6457b", "#8b6ad9", "#12929e", "#a1782b", "#6b8e23", "#e0533d", "#7d8590")
LineStyle = Literal["-", "--", ":", "-.", "none"]
LINESTYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
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
# Seconds to lay out, and no more to be read.
_MOST_PANELS, _MOST_SERIES = 48, 200

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.6,
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
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "grid.color"), INK),
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), INK),
}
# A file of its own has no page around it whose colour it could take.
_OWN_COLOURS = (
    "<style>:root { color: #1f2328; background: transparent } "
    "@media (prefers-color-scheme: dark) { :root { color: #e6edf3 } }</style>"
)
_POINTS = re.compile(r'width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
    """A figure that the rows do not give, and the reason: which rows are missing."""

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureKind:
    """A figure of the report: a pure function from rows to a drawing, or to the reason why there is none.

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


def crowded(num_panels: int) -> Absent | None:
    """Why a figure of so many panels is not drawn; None if it is."""
    if num_panels <= _MOST_PANELS:
        return None
    return Absent(reason=f"{num_panels} panels are more than a figure can show ({_MOST_PANELS}); report fewer rows")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """How a series is told from the others, never by its colour alone: colour, line style, and marker of its points."""

    colour: str
    line: LineStyle
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


def length_axis(axes: Axes, lengths: Sequence[float]) -> None:
    """A logarithmic axis with the measured lengths, or as many of them as can be read, as its ticks."""
    axes.set_xscale("log", base=2)
    ticks = sorted(set(lengths))
    ticks = ticks[:: -(-len(ticks) // MOST_TICKS) or 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("length (tokens)")


def log_ticks(axes: Axes, which: str) -> None:
    """A logarithmic axis of plain numbers; a linear one where decades do not tell the values apart.

    It is linear too where a value is not above 0, and has no ticks where there is no value.
    """
    _value_axis(axes, which, base=10)


def byte_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis of sizes, with powers of two as its ticks; a linear one where these do not tell them apart."""
    _value_axis(axes, which, base=2)


def _value_axis(axes: Axes, which: str, *, base: int) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    least, most = axes.dataLim.intervaly if which == "y" else axes.dataLim.intervalx
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    if not np.isfinite([least, most]).all():
        axis.set_major_locator(NullLocator())
    elif least <= 0 or (low > 0 and high / low < NARROW):
        axis.set_major_locator(MaxNLocator(6))
    else:
        (axes.set_yscale if which == "y" else axes.set_xscale)("log", base=base)
        low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
        digits = (1.0, 2.0, 5.0) if high / low < WIDE else (1.0,)
        axis.set_major_locator(LogLocator(base=10, subs=digits) if base == 10 else LogLocator(base=2, numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain_number if base == 10 else _byte_tick))


def plain_number(value: float, _: object = None) -> str:
    """A tick."""
    return f"{value:g}"


def _byte_tick(value: float, _: object = None) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def draw_spot(
    axes: Axes,
    x: float,
    y: float,
    look: Look,
    *,
    x_ends: tuple[float | None, float | None] = (None, None),
    y_ends: tuple[float | None, float | None] = (None, None),
    size: float = 5,
) -> None:
    """A point with the intervals that it has."""
    for (low, high), places in ((x_ends, lambda ends: (ends, [y, y])), (y_ends, lambda ends: ([x, x], ends))):
        if low is not None and high is not None:
            axes.plot(*places([low, high]), color=look.colour, linewidth=1.5, alpha=0.6)
    axes.plot([x], [y], marker=look.marker, color=look.colour, markersize=size, linestyle="none")


def legend_beside(axes: Axes, marks: Mapping[str, Look], *, lines: bool = False) -> None:
    """A legend beside the last of several panels, of whatever any of them draws."""
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line if lines else "none", label=name)
        for name, look in marks.items()
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))


def status_key(figure: Figure, statuses: Iterable[str]) -> None:
    """Says below the figure what the marks of missing values mean."""
    present = set(statuses)
    handles = [
        Line2D([], [], color=INK, linestyle="none", marker=marker, label=status.replace("_", " "))
        for status, marker in STATUS_MARKERS.items()
        if status in present
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), title=None)


def svg_text(figure: Figure, name: str) -> str:
    """The figure as SVG without colours of its own for text and axes, and without metadata.

    Args:
        figure: To draw.
        name: Of the figure; begins the ids in it.
    """
    file = io.StringIO()
    # Without a date, and with ids that depend on the content and this name only.
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with (
        mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False}),
        warnings.catch_warnings(),
    ):
        # The text stays text: the reader's own fonts have the characters that ours has not.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        # A figure of more than its place can hold is crowded, and still there.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(file, format="svg", metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)([^")]+)', rf"\1{name}-\2", text)
    return re.sub(r"font: ([^;]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, 'DejaVu Sans', sans-serif", text)


def standalone(svg: str) -> str:
    """The SVG as a file that is light on dark where its reader prefers that."""
    head, _, body = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>\n {_OWN_COLOURS}{body}'


def inline(svg: str, title: str) -> str:
    """The SVG as a part of a page: as wide as its column, yet never too small to read."""
    found = _POINTS.search(svg)
    assert found is not None, "matplotlib writes width and height in points"
    width = float(found["width"])
    # In pixels, text of nine points stays between eight and a half and thirteen of them.
    limits = f"width:100%;min-width:{0.95 * width:.0f}px;max-width:{1.45 * width:.0f}px"
    described = f'role="img" aria-label="{title}" style="{limits}"'
    return svg.replace(found[0], described, 1)
