"""Series over lengths: medians with their intervals, and a mark for every length that has no value."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from eval.query import Measured, by_series, ratio_of
from eval.report.figures.style import BAND_ALPHA, INK, STATUS_MARKERS, Look, length_axis, log_ticks, named_looks

REFERENCE = Look(colour=INK, line="--", marker=".")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A value and its interval at one length.

    Attributes:
        x: The length.
        value: The value.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
        by_formula: Not measured; drawn hollow.
    """

    x: float
    value: float
    low: float | None = None
    high: float | None = None
    by_formula: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A length without a value.

    Attributes:
        x: The length.
        status: Why.
    """

    x: float
    status: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A series.

    Attributes:
        label: Its name.
        points: Shortest length first.
        gaps: Lengths without a value.
        reference: Drawn in the text's colour: what the others are measured by.
    """

    label: str
    points: tuple[Point, ...]
    gaps: tuple[Gap, ...] = ()
    reference: bool = False


def time_lines(rows: Iterable[Measured], *, references: Sequence[str] = ()) -> list[Line]:
    """Milliseconds of each series over lengths."""
    lines = []
    for name, series in by_series(rows).items():
        points = [
            Point(
                x=each.cell.length,
                value=1e3 * each.timing.median_seconds,
                low=_milliseconds(each.timing.interval_low),
                high=_milliseconds(each.timing.interval_high),
            )
            for each in series
            if each.timing is not None
        ]
        lines.append(_line(name, points, series, reference=name in references))
    return lines


def ratio_lines(rows: Iterable[Measured], rival: str, *, inverted: bool = False) -> list[Line]:
    """Time of each series over a rival's that was timed in the same rounds; inverted, the speed-up over it."""
    found = list(rows)
    rivals = {each.rounds: each for each in found if each.cell.variant == rival}
    untimed = {each.place: each.row.status for each in found if each.cell.variant == rival and each.timing is None}
    lines = []
    for name, series in by_series(found).items():
        if name == rival:
            continue
        points = []
        for each in series:
            other = rivals.get(each.rounds)
            pair = (None, None) if other is None else (other, each) if inverted else (each, other)
            ratio = None if pair[0] is None or pair[1] is None else ratio_of(pair[0], pair[1])
            if ratio is not None:
                points.append(Point(x=each.cell.length, value=ratio.ratio, low=ratio.low, high=ratio.high))
        line = _line(name, points, series)
        present = {*(point.x for point in line.points), *(gap.x for gap in line.gaps)}
        # What was timed beside a rival that was not is a gap for the rival's reason.
        alone = [
            Gap(x=each.cell.length, status=untimed[each.place])
            for each in series
            if each.cell.length not in present and each.place in untimed
        ]
        lines.append(dataclasses.replace(line, gaps=(*line.gaps, *alone)))
    return lines


def size_lines(
    rows: Iterable[Measured],
    size: Callable[[Measured], int | None],
    formula: Callable[[Measured], int | None] | None = None,
) -> list[Line]:
    """Bytes of each series over lengths, by formula where they were not measured and there is one."""
    lines = []
    for name, series in by_series(rows).items():
        points: dict[int, Point] = {}
        for each in series:
            own, computed = size(each), None if formula is None else formula(each)
            if own or computed:
                points[each.cell.length] = Point(x=each.cell.length, value=own or computed or 0, by_formula=not own)
        lines.append(_line(name, list(points.values()), series))
    return lines


def draw_lines(axes: Axes, lines: Sequence[Line], styles: Mapping[str, Look] | None = None) -> list[str]:
    """Draws series, intervals as bands, and missing lengths as marks along the top.

    Args:
        axes: Where.
        lines: Series.
        styles: The look of each label, where several panels share a legend; None for looks of this panel's own.

    Returns:
        The statuses that were marked.
    """
    styles = own_looks(lines) if styles is None else styles
    marked = []
    level = 0
    # Many bands over each other would be one: they fade, and the bars at the lengths remain.
    alpha = BAND_ALPHA * min(1, 3 / max(1, len(lines)))
    for line in lines:
        look = REFERENCE if line.reference else styles[line.label]
        colour = look.colour
        xs = [point.x for point in line.points]
        values = [point.value for point in line.points]
        filled = [index for index, point in enumerate(line.points) if not point.by_formula]
        axes.plot(xs, values, look.line, color=colour, marker=look.marker, markevery=filled, label=line.label)
        hollow = [point for point in line.points if point.by_formula]
        if hollow:
            places, sizes = [point.x for point in hollow], [point.value for point in hollow]
            axes.plot(places, sizes, marker="o", color=colour, markerfacecolor="none", markersize=9, linestyle="none")
        known = [(p.x, p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
        if known:
            # A single length has no band: its interval is a bar.
            places, lows, highs = (list(each) for each in zip(*known, strict=True))
            axes.fill_between(places, lows, highs, color=colour, alpha=alpha, linewidth=0)
            axes.vlines(places, lows, highs, color=colour, linewidth=1, alpha=0.7)
        for gap in line.gaps:
            marker = STATUS_MARKERS.get(gap.status, "x")
            height = 1.03 + 0.045 * level
            axes.plot(
                [gap.x],
                [height],
                marker=marker,
                color=colour,
                linestyle="none",
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
            marked.append(gap.status)
        level += bool(line.gaps)
    if level:
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=8 + 7 * level)
    return marked


def draw_panel(
    axes: Axes,
    lines: Sequence[Line],
    *,
    title: str,
    label: str,
    styles: Mapping[str, Look] | None = None,
    at_one: bool = False,
    value_axis: Callable[[Axes, str], None] = log_ticks,
) -> list[str]:
    """Draws series as one panel with its axes.

    Args:
        axes: Where.
        lines: Series; without any point or gap nothing is drawn.
        title: Above it.
        label: Of the values.
        styles: As for `draw_lines`.
        at_one: Whether a line marks the value 1.
        value_axis: What makes the axis of values.

    Returns:
        The statuses that were marked.
    """
    lengths = lengths_of(lines)
    if not lengths:
        axes.set_axis_off()
        return []
    axes.set_title(title)
    marked = draw_lines(axes, lines, styles)
    if at_one and has_points(lines):
        axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    length_axis(axes, lengths)
    axes.set_ylabel(label)
    value_axis(axes, "y")
    return marked


def has_points(lines: Iterable[Line]) -> bool:
    """Whether any series has a value."""
    return any(line.points for line in lines)


def own_looks(lines: Iterable[Line]) -> dict[str, Look]:
    """A look for each line that is no reference."""
    return named_looks(line.label for line in lines if not line.reference)


def draw_legend(axes: Axes, lines: Iterable[Line], styles: Mapping[str, Look]) -> None:
    """A legend beside the last of several panels, of whatever any of them draws."""
    drawn = {line.label: REFERENCE if line.reference else styles[line.label] for line in lines}
    handles = [
        axes.plot([], [], look.line, color=look.colour, marker=look.marker, label=label)[0]
        for label, look in drawn.items()
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))


def lengths_of(lines: Iterable[Line]) -> list[float]:
    """Every length of the series."""
    return sorted({x for line in lines for x in (*(p.x for p in line.points), *(g.x for g in line.gaps))})


def _line(name: str, points: Sequence[Point], series: Sequence[Measured], *, reference: bool = False) -> Line:
    present = {point.x for point in points}
    missing = {each.cell.length: each.row for each in series if each.cell.length not in present}
    gaps = [Gap(x=length, status=row.status) for length, row in missing.items() if row.status != "ok"]
    return Line(label=name, points=tuple(points), gaps=tuple(gaps), reference=reference)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
