"""Figures of single layers: time, speed-up and memory over the length, and how far the clock can be trusted."""

import math
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from eval.query import Measured, any_timed, measured, ratio_of, same_rounds
from eval.report.charts import (
    FURTHEST,
    SPEED_UP,
    HeatCell,
    Panel,
    draw_heat_maps,
    draw_panels,
    size_lines,
    time_lines,
)
from eval.report.drawing import (
    FINE,
    INK,
    WARNING,
    Absent,
    Look,
    byte_axis,
    draw_spot,
    log_ticks,
)
from eval.rows import Comparison, Row

SUITE = "attnbench"
MODES = {"forward": "forward", "forward_backward": "forward + backward"}
UNFUSED, FUSED = "mha_manual", "mha"
RIVALS = {UNFUSED: "unfused MHA", FUSED: "fused MHA"}
_FAMILIES = {"sliding_window": "sliding windows", "block_sparse_legacy": "block-sparse", "block_sparse": "block-sparse"}


def main_rows(rows: Sequence[Row], mode: str) -> list[Measured]:
    """Every series of the AttnBench grid of one mode, without a mask."""
    found = measured(rows, suites=(SUITE,), mode=mode)
    return [each for each in found if not each.cell.group.startswith("causal")]


def missing(what: str) -> Absent:
    """Says that a figure of the grid has not the rows."""
    return Absent(reason=f"no rows of {what} in suite {SUITE}")


def draw_latency(rows: Sequence[Row]) -> Figure | Absent:
    """Milliseconds of every series, a line of panels for each mechanism, forward and with gradients."""
    by_mode = {mode: found for mode in MODES if any_timed(found := main_rows(rows, mode))}
    families = list(dict.fromkeys(_family(each) for found in by_mode.values() for each in found))
    if not families:
        return missing("any timed layer")

    def panel(mode: str, family: str) -> Panel:
        own = [each for each in by_mode[mode] if _family(each) == family or each.cell.variant in RIVALS]
        return Panel(title=f"{family}, {MODES[mode]}", lines=time_lines(own, reference=UNFUSED))

    return draw_panels([[panel(mode, family) for mode in by_mode] for family in families], height=2.9)


def _family(each: Measured) -> str:
    name = each.mechanism or each.cell.variant
    return _FAMILIES.get(name, name.replace("_", " "))


def draw_speedups(rows: Sequence[Row]) -> Figure | Absent:
    """A row for each series, a column for each length, forward and with gradients."""
    maps = {title: speedup_cells(found) for mode, title in MODES.items() if (found := main_rows(rows, mode))}
    names = list(dict.fromkeys(name for cells in maps.values() for name, _ in cells if name != UNFUSED))
    if not any(cell.value for cells in maps.values() for (name, _), cell in cells.items() if name in names):
        return missing("any layer timed beside unfused MHA")
    return draw_heat_maps(maps, names, SPEED_UP, labels=("", "length (tokens)"))


def speedup_cells(rows: Sequence[Measured]) -> dict[tuple[str, str], HeatCell]:
    """Baseline's time over each series', by series and length; the text says whether 1 lies in the interval."""
    cells = {}
    for group in same_rounds(rows).values():
        baseline = next((each for each in group if each.cell.variant == UNFUSED), None)
        for each in group:
            ratio = None if baseline is None else ratio_of(baseline, each)
            if each.row.status != "ok":
                cell = HeatCell(value=None, text=each.row.status.replace("_", " "))
            elif ratio is None:
                cell = HeatCell(value=None, text="no baseline")
            else:
                sure = "" if ratio.differs else "≈" if ratio.low is not None else "once "
                shown = math.exp(max(-math.log(FURTHEST), min(math.log(FURTHEST), math.log(ratio.value))))
                cell = HeatCell(value=shown, text=f"{sure}{ratio.value:.2g}")
            cells[each.cell.variant, f"{each.cell.length}"] = cell
    return cells


def draw_memory(rows: Sequence[Row]) -> Figure | Absent:
    """A panel for the cache of each model, and one for the peak of each mode of the long lengths."""
    panels = []
    decoding, long = measured(rows, mode="decode"), measured(rows, suites=("long",))
    for place in dict.fromkeys(_decoded(each) for each in decoding if each.cache_bytes):
        model, batch_size, dtype = place
        title = f"cache while decoding, {model or 'one layer'}, B={batch_size}, {dtype}"
        own = [each for each in decoding if _decoded(each) == place]
        lines = size_lines(own, lambda each: each.cache_bytes, lambda each: each.analytic_cache_bytes)
        panels.append(Panel(title=title, lines=lines, label="", value_axis=byte_axis))
    for kind in dict.fromkeys(_kind(each) for each in long if each.peak_bytes):
        level, mode, heads = kind
        title = f"peak of one {level}, {mode.replace('_', ' + ')}, {heads} head{'s' if heads > 1 else ''}"
        own = [each for each in long if _kind(each) == kind]
        # Short lengths are timed only: that they have no peak is no gap.
        known = {each.cell.length for each in own if each.peak_bytes}
        lines = size_lines([each for each in own if each.cell.length in known], lambda each: each.peak_bytes)
        panels.append(Panel(title=title, lines=lines, label="", value_axis=byte_axis))
    if not panels:
        return Absent(reason="no rows with cache bytes (suite decode), nor with peak bytes over length (suite long)")
    return draw_panels([[panel] for panel in panels], height=3.6)


def _decoded(each: Measured) -> tuple[str | None, int, str]:
    return each.cell.model, each.cell.batch_size, each.cell.dtype


def _kind(each: Measured) -> tuple[str, str, int]:
    return each.cell.level, each.cell.mode, each.cell.num_heads


def draw_control(rows: Sequence[Row]) -> Figure | Absent:
    """Every control's interval, lowest ratio first."""
    found = sorted(controls(rows), key=lambda each: each[0])
    if not found:
        return Absent(reason="no A/A control has an interval")
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for x, (ratio, low, high) in enumerate(found):
        good = low <= 1 <= high
        look = Look(colour=FINE if good else WARNING, line="-", marker="o" if good else "X")
        draw_spot(axes, x, ratio, look, y_ends=(low, high))
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    inside = sum(low <= 1 <= high for _, low, high in found)
    axes.set_title(f"{inside} of {len(found)} intervals contain 1 ({inside / len(found):.0%})")
    axes.set_xlabel("controls, lowest ratio first")
    axes.set_ylabel("time over itself")
    axes.set_xticks([])
    log_ticks(axes, "y")
    return figure


def controls(rows: Iterable[Row]) -> list[tuple[float, float, float]]:
    """Ratio and interval of every A/A control that has one: the baseline timed a second time in the same rounds."""
    compared: list[Comparison] = [
        row.comparison for row in rows if row.cell and row.cell.role == "control" and row.comparison is not None
    ]
    return [
        (each.ratio, each.ratio_low, each.ratio_high)
        for each in compared
        if each.ratio_low is not None and each.ratio_high is not None
    ]
