"""Figures of single layers: time, speed-up and memory over the length, and how far the clock can be trusted."""

import functools
from collections.abc import Callable, Iterable, Sequence

from matplotlib.figure import Figure

from eval.query import Measured, any_timed, by_series, grouped, measured, ratio_of, same_rounds
from eval.report.charts import SPEED_UP, HeatCell, Panel, Point, draw_heat_maps, draw_panels
from eval.report.drawing import FINE, INK, WARNING, draw_spot, exactly, figure, length_axes, value_axis
from eval.rows import Row
from eval.statistics import Contrast

SUITE = "attnbench"
UNFUSED, FUSED = "mha_manual", "mha"
_MODES = {"forward": "forward", "forward_backward": "forward + backward"}
_FAMILIES = {"sliding_window": "sliding windows", "block_sparse_legacy": "block-sparse", "block_sparse": "block-sparse"}


@figure(
    "Latency over length",
    "Median milliseconds of one attention layer with its 95 % interval, one panel a mechanism; unfused MHA (dashed) "
    "and fused MHA are in all of them. Marks above a panel are lengths without a time, and why.",
)
def latency(rows: Sequence[Row]) -> Figure | str:
    """Milliseconds of every series, a line of panels for each mechanism, forward and with gradients."""
    by_mode = {mode: found for mode in _MODES if any_timed(found := grid_rows(rows, mode))}
    families = dict.fromkeys(_family(each) for found in by_mode.values() for each in found)
    if not families:
        return f"no rows of any timed layer in suite {SUITE}"
    grid, axes = [], functools.partial(length_axes, label="ms")
    for family in families:
        panels = []
        for mode, found in by_mode.items():
            own = [each for each in found if _family(each) == family or each.cell.variant in (UNFUSED, FUSED)]
            panels.append(Panel(f"{family}, {_MODES[mode]}", lines_over_length(own, milliseconds), axes))
        grid.append(panels)
    return draw_panels(grid, height=2.9, reference=UNFUSED)


def grid_rows(rows: Sequence[Row], mode: str) -> list[Measured]:
    """Every series of the AttnBench grid of one mode, without a mask."""
    found = measured(rows, suites=(SUITE,), mode=mode)
    return [each for each in found if not each.cell.group.startswith("causal")]


def _family(each: Measured) -> str:
    name = each.mechanism or each.cell.variant
    return _FAMILIES.get(name, name.replace("_", " "))


def lines_over_length(rows: Iterable[Measured], value: Callable[[Measured], Point]) -> dict[str, list[Point]]:
    """The points of each series, shortest length first; a length without a value is a gap unless its status is ok."""
    lines = {}
    for name, series in by_series(rows).items():
        points = sorted(map(value, series), key=lambda point: (point.x, point.value is not None))
        by_length = {point.x: point for point in points if point.value is not None or point.status != "ok"}
        lines[name] = list(by_length.values())
    return lines


def milliseconds(each: Measured) -> Point:
    """The median with its interval."""
    length, timing = each.cell.length, each.timing
    if timing is None:
        return Point(length, None, status=each.row.status)
    low, high = (None if end is None else 1e3 * end for end in (timing.interval_low, timing.interval_high))
    return Point(length, 1e3 * timing.median_seconds, low, high)


@figure(
    "Speed-ups over unfused attention",
    "Blue is faster than unfused MHA, orange slower, grey equal; the colours are logarithmic, centred on 1. ≈: the "
    "95 % interval contains 1; once: a single sample, which has none. Other mechanisms are other functions; what they "
    "cost in quality stands in the table of variants.",
)
def speedups(rows: Sequence[Row]) -> Figure | str:
    """A row for each series, a column for each length, forward and with gradients."""
    by_mode = {title: speedup_cells(grid_rows(rows, mode)) for mode, title in _MODES.items()}
    maps = {title: cells for title, cells in by_mode.items() if cells}
    if not any(cell.value for cells in maps.values() for cell in cells.values()):
        return f"no rows of any layer timed beside unfused MHA in suite {SUITE}"
    return draw_heat_maps(maps, SPEED_UP, labels=("", "length (tokens)"))


def speedup_cells(rows: Sequence[Measured]) -> dict[tuple[str, str], HeatCell]:
    """Unfused MHA's time over every other series', by series and length; the text tells if 1 lies in the interval."""
    cells = {}
    for group in same_rounds(rows).values():
        baseline = next((each for each in group if each.cell.variant == UNFUSED), None)
        for each in (each for each in group if each.cell.variant != UNFUSED):
            ratio = None if baseline is None else ratio_of(baseline, each)
            if each.row.status != "ok":
                cell = HeatCell(None, each.row.status.replace("_", " "))
            elif ratio is None:
                cell = HeatCell(None, "no baseline")
            else:
                sure = "" if ratio.differs else "≈" if ratio.low is not None else "once "
                cell = HeatCell(ratio.value, f"{sure}{ratio.value:.2g}")
            cells[each.cell.variant, f"{each.cell.length}"] = cell
    return cells


@figure(
    "Memory over length",
    "Bytes of MLX's allocator in a process of its own; hollow: by formula, not measured. A cache that stays level "
    "belongs to a mechanism with a window or a fixed state; a peak that grows twice as steeply as the length is a "
    "score matrix.",
)
def decode_memory(rows: Sequence[Row]) -> Figure | str:
    """A panel for the cache of each model, and one for the peak of each mode of the long lengths."""
    axes = functools.partial(length_axes, of_bytes=True)
    panels = []
    for title, own in grouped(measured(rows, mode="decode"), _cache_title).items():
        if any(each.cache_bytes for each in own):
            panels.append(Panel(title, lines_over_length(own, _cache), axes))
    for title, own in grouped(measured(rows, suites=("long",)), _peak_title).items():
        # Short lengths are timed only: that they have no peak is no gap.
        lengths = {each.cell.length for each in own if each.peak_bytes}
        if lengths:
            known = [each for each in own if each.cell.length in lengths]
            panels.append(Panel(title, lines_over_length(known, _peak), axes))
    if not panels:
        return "no rows with cache bytes (suite decode), nor with peak bytes over length (suite long)"
    return draw_panels([[panel] for panel in panels], height=3.6)


def _cache_title(each: Measured) -> str:
    return f"cache while decoding, {each.cell.model or 'one layer'}, B={each.cell.batch_size}, {each.cell.dtype}"


def _peak_title(each: Measured) -> str:
    heads = f"{each.cell.num_heads} head{'s' if each.cell.num_heads > 1 else ''}"
    return f"peak of one {each.cell.level}, {each.cell.mode.replace('_', ' + ')}, {heads}"


def _cache(each: Measured) -> Point:
    size = each.cache_bytes or each.analytic_cache_bytes or None
    return Point(each.cell.length, size, status=each.row.status, by_formula=not each.cache_bytes)


def _peak(each: Measured) -> Point:
    return Point(each.cell.length, each.peak_bytes or None, status=each.row.status)


@figure(
    "A/A control",
    "The baseline of each group timed a second time, in the same rounds. At least nine intervals of ten should contain "
    "1 (green); where they do not, the machine was busy and no other interval deserves trust.",
)
def control(rows: Sequence[Row]) -> Figure | str:
    """Every control's interval, lowest ratio first."""
    found = sorted(controls(rows), key=lambda each: each.value)
    if not found:
        return "no A/A control has an interval"
    drawn = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = drawn.subplots()
    for x, ratio in enumerate(found):
        bad, good = {"color": WARNING, "marker": "X"}, {"color": FINE, "marker": "o"}
        draw_spot(axes, exactly(x), ratio, bad if ratio.differs else good)
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    inside = sum(not ratio.differs for ratio in found)
    axes.set_title(f"{inside} of {len(found)} intervals contain 1 ({inside / len(found):.0%})")
    axes.set(xlabel="controls, lowest ratio first", ylabel="time over itself", xticks=[])
    value_axis(axes.yaxis)
    return drawn


def controls(rows: Iterable[Row]) -> list[Contrast]:
    """Every A/A control's ratio that has an interval: the baseline timed a second time in the same rounds."""
    compared = [row.comparison for row in rows if row.cell and row.cell.role == "control" and row.comparison]
    ratios = [Contrast(value=each.ratio, low=each.ratio_low, high=each.ratio_high) for each in compared]
    return [each for each in ratios if each.low is not None and each.high is not None]
