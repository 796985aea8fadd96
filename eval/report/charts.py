"""The two charts that most figures are: panels of series over lengths, and heat maps that say their values."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eval.query import Measured, by_series
from eval.report.drawing import (
    BAND_ALPHA,
    INK,
    STATUS_MARKERS,
    Absent,
    Look,
    crowded,
    legend_beside,
    length_axis,
    log_ticks,
    named_looks,
    status_key,
)

_REFERENCE = Look(colour=INK, line="--", marker=".")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A value at one length, with its interval where it has one; by formula, it was not measured and is hollow."""

    x: float
    value: float
    low: float | None = None
    high: float | None = None
    by_formula: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A series.

    Attributes:
        label: Its name.
        points: Shortest length first.
        gaps: Lengths without a value, and the status that says why.
        reference: Drawn in the text's colour: what the others are measured by.
    """

    label: str
    points: tuple[Point, ...]
    gaps: Mapping[float, str]
    reference: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """A part of a figure.

    Attributes:
        title: Above it.
        lines: Series over lengths.
        label: Of the values.
        value_axis: What makes the axis of values.
    """

    title: str
    lines: Sequence[Line] = ()
    label: str = "ms"
    value_axis: Callable[[Axes, str], None] = log_ticks


def time_lines(rows: Iterable[Measured], *, reference: str = "") -> list[Line]:
    """Milliseconds of each series over lengths."""

    def point(each: Measured) -> Point | None:
        timing = each.timing
        if timing is None:
            return None
        low, high = (None if end is None else 1e3 * end for end in (timing.interval_low, timing.interval_high))
        return Point(x=each.cell.length, value=1e3 * timing.median_seconds, low=low, high=high)

    return [_line(name, series, point, is_reference=name == reference) for name, series in by_series(rows).items()]


def size_lines(
    rows: Iterable[Measured],
    size: Callable[[Measured], int | None],
    formula: Callable[[Measured], int | None] | None = None,
) -> list[Line]:
    """Bytes of each series over lengths, by formula where they were not measured and there is one."""

    def point(each: Measured) -> Point | None:
        own, computed = size(each), None if formula is None else formula(each)
        return Point(x=each.cell.length, value=own or computed or 0, by_formula=not own) if own or computed else None

    return [_line(name, series, point) for name, series in by_series(rows).items()]


def _line(
    name: str,
    series: Sequence[Measured],
    point: Callable[[Measured], Point | None],
    *,
    is_reference: bool = False,
) -> Line:
    found = {each.cell.length: made for each in series if (made := point(each)) is not None}
    gaps: dict[float, str] = {each.cell.length: each.row.status for each in series if each.row.status != "ok"}
    without = {length: status for length, status in gaps.items() if length not in found}
    return Line(label=name, points=tuple(found.values()), gaps=without, reference=is_reference)


def draw_panels(grid: Sequence[Sequence[Panel]], *, height: float) -> Figure | Absent:
    """A figure of lines of panels; the panels of a line share their looks and a legend beside the last of them.

    Args:
        grid: Lines of equally many panels.
        height: Of a line, in inches.
    """
    if (absent := crowded(sum(map(len, grid)))) is not None:
        return absent
    figure = Figure(figsize=(10.5, height * len(grid)), layout="constrained")
    marked: list[str] = []
    for panels, places in zip(grid, figure.subplots(len(grid), len(grid[0]), squeeze=False), strict=True):
        drawn = [line for panel in panels for line in panel.lines]
        own = named_looks(line.label for line in drawn if not line.reference)
        styles = {line.label: _REFERENCE if line.reference else own[line.label] for line in drawn}
        for panel, axes in zip(panels, places, strict=True):
            marked += _draw_panel(axes, panel, styles)
        if styles:
            beside = max(index for index, panel in enumerate(panels) if panel.lines)
            legend_beside(places[beside], styles, lines=True)
    status_key(figure, marked)
    return figure


def _draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, Look]) -> list[str]:
    lengths = sorted({x for line in panel.lines for x in (*(point.x for point in line.points), *line.gaps)})
    axes.set_title(panel.title)
    if not lengths:
        axes.set_axis_off()
        return []
    marked = _draw_lines(axes, panel.lines, styles)
    length_axis(axes, lengths)
    axes.set_ylabel(panel.label)
    panel.value_axis(axes, "y")
    return marked


def _draw_lines(axes: Axes, lines: Sequence[Line], styles: Mapping[str, Look]) -> list[str]:
    """Draws series, intervals as bands, and missing lengths as marks along the top; returns the statuses marked."""
    level = 0
    # Many bands over each other would be one: they fade, and the bars at the lengths remain.
    alpha = BAND_ALPHA * min(1, 3 / max(1, len(lines)))
    for line in lines:
        look = styles[line.label]
        colour = look.colour
        xs, values = [point.x for point in line.points], [point.value for point in line.points]
        filled = [index for index, point in enumerate(line.points) if not point.by_formula]
        axes.plot(xs, values, look.line, color=colour, marker=look.marker, markevery=filled)
        hollow = [(point.x, point.value) for point in line.points if point.by_formula]
        if hollow:
            places, sizes = ([point[index] for point in hollow] for index in (0, 1))
            axes.plot(places, sizes, marker="o", color=colour, markerfacecolor="none", markersize=9, linestyle="none")
        known = [(p.x, p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
        if known:
            # A single length has no band: its interval is a bar.
            places, lows, highs = (list(each) for each in zip(*known, strict=True))
            axes.fill_between(places, lows, highs, color=colour, alpha=alpha, linewidth=0)
            axes.vlines(places, lows, highs, color=colour, linewidth=1, alpha=0.7)
        for x, status in line.gaps.items():
            mark = axes.plot([x], [1.03 + 0.045 * level], STATUS_MARKERS.get(status, "x"), color=colour, clip_on=False)
            mark[0].set_transform(axes.get_xaxis_transform())
        level += bool(line.gaps)
    if level:
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=8 + 7 * level)
    return [status for line in lines for status in line.gaps.values()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeatCell:
    """A cell: what its colour says, None for no value, and what it says in words."""

    value: float | None
    text: str


Cells = Mapping[tuple[str, str], HeatCell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """What the colours of a heat map say.

    Attributes:
        label: Of the values.
        colours: From the lowest value to the highest.
        scale: What spreads the values over the colours.
        ticks: Values that the key names.
    """

    label: str
    colours: Colormap
    scale: Normalize
    ticks: Mapping[float, str]


# Colours end at this factor; the text says what is beyond.
FURTHEST = 8.0
ACCURACY = Key(
    label="accuracy",
    colours=LinearSegmentedColormap.from_list("share", ["#eef0f2", "#8fc7c9", "#12737d"]),
    scale=Normalize(vmin=0, vmax=1),
    ticks={0: "0", 0.5: "0.5", 1: "1"},
)
# Diverging: slower, equal, faster. Blue against orange, which every colour vision tells apart.
SPEED_UP = Key(
    label="speed-up over unfused MHA",
    colours=LinearSegmentedColormap.from_list("slower_faster", ["#b5530a", "#f2c9a1", "#eef0f2", "#a9c9ee", "#1f5fae"]),
    scale=LogNorm(vmin=1 / FURTHEST, vmax=FURTHEST),
    ticks={each: f"{each:g}×" for each in (0.125, 0.25, 0.5, 1, 2, 4, 8)},
)


def draw_heat_maps(
    maps: Mapping[str, Cells],
    rows: Sequence[str],
    key: Key,
    *,
    labels: tuple[str, str],
    side_by_side: int | None = None,
    title: str | None = None,
) -> Figure | Absent:
    """A figure of heat maps whose cells say their value, or why they have none.

    Args:
        maps: Title of each -> its cells, by names of row and column; columns are numbers.
        rows: Names of the rows, from above.
        key: To the colours.
        labels: Of rows and columns.
        side_by_side: How many maps stand in one line; None for all.
        title: Above all of them.
    """
    if (absent := crowded(len(maps))) is not None:
        return absent
    width = min(side_by_side or len(maps), len(maps))
    num_lines = math.ceil(len(maps) / width)
    size = (min(11.0, 3.2 + 3.9 * width), max(2.6, 0.3 + num_lines * (1.1 + 0.3 * len(rows))))
    figure = Figure(figsize=size, layout="constrained")
    if title is not None:
        figure.suptitle(title)
    panels = figure.subplots(num_lines, width, squeeze=False, sharey=side_by_side is None).ravel()
    for (name, cells), axes in zip(maps.items(), panels, strict=False):
        axes.set_title(name)
        _draw_heat(axes, cells, rows, key)
        axes.set_ylabel(labels[0])
        axes.set_xlabel(labels[1])
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    # From fifty colours on, matplotlib would make the key a bitmap.
    shown = mpl.cm.ScalarMappable(norm=key.scale, cmap=key.colours.resampled(48))
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
        if row not in rows:
            continue
        x, y, fill, colour = columns.index(column), rows.index(row), "none", INK
        if cell.value is not None:
            fill = mpl.colors.to_hex(key.colours(key.scale(cell.value)))
            # Rec. 709 luminance above which dark text reads better.
            luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), mpl.colors.to_rgb(fill), strict=True))
            colour = "#101418" if luminance > 0.5 else "#ffffff"
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=INK, linewidth=0.3))
        axes.text(x + 0.5, y + 0.5, cell.text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
