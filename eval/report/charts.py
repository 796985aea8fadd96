"""The two charts that most figures are: panels of lines with their intervals, and heat maps that say their values."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from eval.report.drawing import INK, Look, legend_beside, looks

# What the marks of missing values mean.
_GAPS = {"skipped": "x", "incorrect": "X", "out_of_memory": "v", "crashed": "*", "unavailable": "_"}
_REFERENCE: Look = {"color": INK, "linestyle": "--", "marker": "."}
# Seconds to lay out, and no more to be read.
_MOST_PANELS = 48
_SIDE_BY_SIDE = 3
_BAND_ALPHA = 0.15


class Point(NamedTuple):
    """A value at one place, with its interval where it has one; None for a gap, whose status says why.

    A value by formula was not measured and is hollow.
    """

    x: float
    value: float | None
    low: float | None = None
    high: float | None = None
    status: str = "ok"
    by_formula: bool = False


class Panel(NamedTuple):
    """A part of a figure: its title, the points of each series from left to right, and what labels its axes."""

    title: str
    lines: Mapping[str, Sequence[Point]]
    label_axes: Callable[[Axes], None]


def draw_panels(
    grid: Sequence[Sequence[Panel]], *, height: float, reference: str | None = None, dots: bool = True
) -> Figure | str:
    """A figure of lines of panels; the panels of a line share their looks and a legend beside the last of them.

    Args:
        grid: Lines of equally many panels.
        height: Of a line, in inches.
        reference: The series that the others are measured by: drawn in the text's colour.
        dots: Marks each point and its interval; without, a line through many has its band alone.
    """
    if (num_panels := sum(map(len, grid))) > _MOST_PANELS:
        return _too_many(num_panels)
    figure = Figure(figsize=(10.5, height * len(grid)), layout="constrained")
    told: set[str] = set()
    for panels, places in zip(grid, figure.subplots(len(grid), len(grid[0]), squeeze=False), strict=True):
        names = dict.fromkeys(name for panel in panels for name in panel.lines)
        own = looks(name for name in names if name != reference)
        styles = {name: own.get(name, _REFERENCE) for name in names}
        for panel, axes in zip(panels, places, strict=True):
            axes.set_title(panel.title)
            if any(panel.lines.values()):
                told |= _draw_lines(axes, panel.lines, styles, dots=dots)
                panel.label_axes(axes)
            else:
                axes.set_axis_off()
        if styles:
            beside = max(index for index, panel in enumerate(panels) if panel.lines)
            legend_beside(places[beside], styles if dots else {name: _bare(look) for name, look in styles.items()})
    gaps = {status: mark for status, mark in _GAPS.items() if status in told}
    if gaps:
        look: Look = {"color": INK, "linestyle": "none"}
        handles = [Line2D([], [], **look, marker=mark, label=gap.replace("_", " ")) for gap, mark in gaps.items()]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    return figure


def _too_many(num_panels: int) -> str:
    return f"{num_panels} panels are more than a figure can show ({_MOST_PANELS}); report fewer rows"


def _bare(look: Look) -> Look:
    return {**look, "marker": "None"}


def _draw_lines(
    axes: Axes, lines: Mapping[str, Sequence[Point]], styles: Mapping[str, Look], *, dots: bool
) -> set[str]:
    """Draws the series, and their gaps as marks along the top; returns the statuses of these."""
    # Many bands over each other would be one: they fade where the bars at the points tell the same.
    alpha = _BAND_ALPHA * (min(1, 3 / len(lines)) if dots else 1)
    above, told, height = axes.get_xaxis_transform(), set(), 0
    for name, points in lines.items():
        look, gaps = styles[name], [point for point in points if point.value is None]
        _draw_line(axes, [point for point in points if point.value is not None], look, alpha=alpha, dots=dots)
        for point in gaps:
            own = {"color": look["color"], "transform": above, "clip_on": False}
            axes.plot([point.x], [1.03 + 0.045 * height], _GAPS[point.status], **own)
        height += bool(gaps)
        told |= {point.status for point in gaps}
    if told:
        axes.set_title(axes.get_title(loc="left"), pad=8 + 7 * height)
    return told


def _draw_line(axes: Axes, points: Sequence[Point], look: Look, *, alpha: float, dots: bool) -> None:
    """A line with its intervals as a band, and as bars at its dots: a single point has no band."""
    dots, color = dots or len(points) == 1, look["color"]
    filled = [index for index, point in enumerate(points) if not point.by_formula]
    values = [point.value for point in points if point.value is not None]
    axes.plot([point.x for point in points], values, **(look if dots else _bare(look)), markevery=filled)
    hollow = [(point.x, point.value) for point in points if point.by_formula]
    if hollow:
        axes.plot(*zip(*hollow, strict=True), "o", color=color, markerfacecolor="none", markersize=9)
    known = [(point.x, point.low, point.high) for point in points if None not in (point.low, point.high)]
    if known:
        places, lows, highs = zip(*known, strict=True)
        axes.fill_between(places, lows, highs, color=color, alpha=alpha, linewidth=0)
        if dots:
            axes.vlines(places, lows, highs, color=color, linewidth=1, alpha=0.7)


class HeatCell(NamedTuple):
    """A cell: what its colour says, None for no value, and what it says in words."""

    value: float | None
    text: str


# By names of row and column; columns are numbers.
Cells = Mapping[tuple[str, str], HeatCell]


class Key(NamedTuple):
    """What the colours of a heat map say: from the lowest value to the highest, and the values that the key names."""

    label: str
    colours: Colormap
    scale: Normalize
    ticks: Mapping[float, str]


ACCURACY = Key(
    label="accuracy",
    colours=LinearSegmentedColormap.from_list("share", ["#eef0f2", "#8fc7c9", "#12737d"]),
    scale=Normalize(vmin=0, vmax=1),
    ticks={0: "0", 0.5: "0.5", 1: "1"},
)
# Diverging: slower, equal, faster. Blue against orange, which every colour vision tells apart. The colours end at a
# factor of 8; the text says what is beyond.
SPEED_UP = Key(
    label="speed-up over unfused MHA",
    colours=LinearSegmentedColormap.from_list("slower_faster", ["#b5530a", "#f2c9a1", "#eef0f2", "#a9c9ee", "#1f5fae"]),
    scale=LogNorm(vmin=1 / 8, vmax=8),
    ticks={each: f"{each:g}×" for each in (0.125, 0.25, 0.5, 1, 2, 4, 8)},
)


def draw_heat_maps(
    maps: Mapping[str, Cells], key: Key, *, labels: tuple[str, str], title: str | None = None
) -> Figure | str:
    """A figure of heat maps whose cells say their value, or why they have none.

    Args:
        maps: Title of each -> its cells; rows are in the order in which they come.
        key: To the colours.
        labels: Of rows and columns.
        title: Above all of them.
    """
    if len(maps) > _MOST_PANELS:
        return _too_many(len(maps))
    rows = list(dict.fromkeys(row for cells in maps.values() for row, _ in cells))
    width = min(_SIDE_BY_SIDE, len(maps))
    num_lines = math.ceil(len(maps) / width)
    size = (min(11.0, 3.2 + 3.9 * width), max(2.6, 0.3 + num_lines * (1.1 + 0.3 * len(rows))))
    figure = Figure(figsize=size, layout="constrained")
    if title is not None:
        figure.suptitle(title)
    panels = figure.subplots(num_lines, width, squeeze=False, sharey=True).ravel()
    for (name, cells), axes in zip(maps.items(), panels, strict=False):
        _draw_heat(axes, cells, rows, key)
        axes.set(title=name, ylabel=labels[0], xlabel=labels[1])
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    # From fifty colours on, matplotlib would make the key a bitmap.
    shown = ScalarMappable(norm=key.scale, cmap=key.colours.resampled(48))
    bar = figure.colorbar(shown, ax=list(panels), shrink=0.6, aspect=30, pad=0.02, label=key.label)
    bar.set_ticks(list(key.ticks), labels=list(key.ticks.values()))
    bar.minorticks_off()
    # Without an edge of its own, each colour would be set off from the next by a hairline.
    assert bar.solids is not None, "a key of colours has its patches"
    bar.solids.set_edgecolor("face")
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    return figure


def _draw_heat(axes: Axes, cells: Cells, rows: Sequence[str], key: Key) -> None:
    """Cells without a value keep the page's ground, with their text in the page's colour."""
    columns = sorted({column for _, column in cells}, key=float)
    for (row, column), cell in cells.items():
        x, y, fill, ink = columns.index(column), rows.index(row), "none", INK
        if cell.value is not None:
            red, green, blue, _ = key.colours(key.scale(cell.value))
            fill = mpl.colors.to_hex((red, green, blue))
            # Rec. 709 luminance above which dark text reads better.
            ink = "#101418" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "#ffffff"
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=INK, linewidth=0.3))
        axes.text(x + 0.5, y + 0.5, cell.text, ha="center", va="center", fontsize=7.5, color=ink)
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
