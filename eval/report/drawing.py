"""How every figure looks, and how it becomes SVG: equal bytes for equal rows, colours for light and for dark pages."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from eval.report.text import num_bytes
from eval.rows import Row
from eval.statistics import Contrast

# The file `figures.mplstyle` beside this one.
STYLE = "eval.report.figures"
# Stands for the page's own text colour, here and in the style: `svg_text` writes `currentColor` in its place.
INK = "#0a0b0c"
# Contrast at least 3 to 1 on white and on near-black (WCAG's figure for graphics); a test holds them to it.
PALETTE = ("#3b82d6", "#d4691a", "#2b9a66", "#d6457b", "#8b6ad9", "#12929e", "#a1782b", "#6b8e23", "#e0533d", "#7d8590")
LINESTYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_MARKER_STEP = 3
# Bad, good: of points beside the line they should lie on.
WARNING, FINE = "#e0533d", "#2b9a66"
# Widest over narrowest value, below which an axis is linear, and above which it has decades only.
NARROW, WIDE = 3.0, 500.0
MOST_TICKS = 16
# Of the variants of a figure; more can be told apart by nobody.
_MOST_SERIES = 200
# A file of its own has no page around it whose colour it could take.
_OWN_COLOURS = (
    "<style>:root { color: #1f2328; background: transparent } "
    "@media (prefers-color-scheme: dark) { :root { color: #e6edf3 } }</style>"
)
_POINTS = re.compile(r'width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')

# Keywords of `Axes.plot`.
Look = dict[str, Any]
Draw = Callable[[Sequence[Row]], Figure | str]


class FigureKind(NamedTuple):
    """A figure of the report: a pure function from the rows of one device to a drawing.

    Attributes:
        title: One line.
        caption: What is drawn, and what to look for.
        draw: Gives the reason why there is no drawing where the rows do not give one.
    """

    title: str
    caption: str
    draw: Draw

    @property
    def name(self) -> str:
        """Of its file."""
        return self.draw.__name__

    def drawn(self, rows: Sequence[Row]) -> Figure | str:
        """Draws in the report's style, unless there are more series than anybody can tell apart."""
        names = {part.variant for row in rows if (part := row.cell or row.quality) is not None}
        if len(names) > _MOST_SERIES:
            return f"{len(names)} variants are more than a figure can show ({_MOST_SERIES})"
        with mpl.style.context(STYLE):
            return self.draw(rows)


def figure(title: str, caption: str) -> Callable[[Draw], FigureKind]:
    """Makes a function a figure of the report, with the function's name."""
    return lambda draw: FigureKind(title, caption, draw)


def looks(names: Iterable[str], **fixed: str) -> dict[str, Look]:
    """How each series is told from the others, never by its colour alone; what is fixed, all of them share.

    All colours come before any comes again, and then with another marker and line.
    """
    found: dict[str, Look] = {}
    for index, name in enumerate(dict.fromkeys(names)):
        turn = index // len(PALETTE)
        look = {
            "color": PALETTE[index % len(PALETTE)],
            # The step has no factor in common with their number, so that every colour meets every marker.
            "marker": MARKERS[(index + _MARKER_STEP * turn) % len(MARKERS)],
            "linestyle": LINESTYLES[turn % len(LINESTYLES)],
        }
        found[name] = look | fixed
    return found


def length_axes(axes: Axes, *, label: str = "", of_bytes: bool = False) -> None:
    """Values over a logarithmic axis with the lengths that were drawn, or as many as can be read, as its ticks."""
    axes.set_xscale("log", base=2)
    ticks = sorted({float(x) for line in axes.lines for x in np.atleast_1d(line.get_xdata())})
    ticks = ticks[:: -(-len(ticks) // MOST_TICKS) or 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="length (tokens)", ylabel=label)
    value_axis(axes.yaxis, of_bytes=of_bytes)


def value_axis(axis: Axis, *, of_bytes: bool = False) -> None:
    """A logarithmic axis with plain numbers as its ticks, or with sizes at powers of two.

    It is linear where such ticks do not tell the values apart, or where a value is not above 0, and has no ticks where
    there is no value.
    """
    axes = axis.axes
    low, high = axis.get_view_interval()
    locator: Locator
    if not np.isfinite(axis.get_data_interval()).all():
        locator = NullLocator()
    elif axis.get_data_interval()[0] <= 0 or (low > 0 and high / low < NARROW):
        locator = MaxNLocator(6)
    else:
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log", base=2 if of_bytes else 10)
        low, high = axis.get_view_interval()
        digits = (1.0, 2.0, 5.0) if high / low < WIDE else (1.0,)
        locator = LogLocator(base=2, numticks=7) if of_bytes else LogLocator(base=10, subs=digits)
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    byte_tick = FuncFormatter(lambda value, _: re.sub(r"\.0+ ", " ", num_bytes(value)))
    axis.set_major_formatter(byte_tick if of_bytes else StrMethodFormatter("{x:g}"))


def exactly(value: float) -> Contrast:
    """A value without an interval."""
    return Contrast(value=value, low=None, high=None)


def draw_spot(axes: Axes, x: Contrast, y: Contrast, look: Look, *, size: float = 5) -> None:
    """A point with the intervals that it has."""
    bar = {"color": look["color"], "linewidth": 1.5, "alpha": 0.6}
    if x.low is not None and x.high is not None:
        axes.plot([x.low, x.high], [y.value, y.value], **bar)
    if y.low is not None and y.high is not None:
        axes.plot([x.value, x.value], [y.low, y.high], **bar)
    axes.plot([x.value], [y.value], **{**look, "linestyle": "none", "markersize": size})


def legend_beside(axes: Axes, marks: Mapping[str, Look]) -> None:
    """A legend beside the last of several panels, of whatever any of them draws."""
    handles = [Line2D([], [], label=name, **look) for name, look in marks.items()]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))


def svg_text(figure: Figure, name: str) -> str:
    """The figure as SVG without metadata and colours of its own for text and axes; its name begins the ids in it."""
    file = io.StringIO()
    # Without a date, and with ids that depend on the content and this name only.
    settings: dict[Any, Any] = {"svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # The text stays text: the reader's own fonts have the characters that ours has not.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        # A figure of more than its place can hold is crowded, and still there.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)([^")]+)', rf"\1{name}-\2", text)


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
