"""Figures of single layers: time, speed-up and memory over the length, and how far the clock can be trusted."""

import functools
import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.query import Measured, any_timed, by_series, measured, pairs_of, ratio_of, same_rounds
from eval.report.charts import (
    FURTHEST,
    SPEED_UP,
    HeatCell,
    Panel,
    draw_heat_maps,
    draw_panels,
    has_points,
    ratio_lines,
    size_lines,
    time_lines,
)
from eval.report.drawing import (
    BAND_ALPHA,
    FINE,
    INK,
    MARKERS,
    PALETTE,
    WARNING,
    Absent,
    Look,
    byte_axis,
    draw_spot,
    legend_beside,
    log_ticks,
)
from eval.report.text import open_interval
from eval.rows import Comparison, Row
from eval.statistics.intervals import Contrast
from eval.statistics.scaling import Crossover, crossover, scaling_exponent

SUITE = "attnbench"
MODES = {"forward": "forward", "forward_backward": "forward + backward"}
UNFUSED, FUSED = "mha_manual", "mha"
RIVALS = {UNFUSED: "unfused MHA", FUSED: "fused MHA"}
_FAMILIES = {"sliding_window": "sliding windows", "block_sparse_legacy": "block-sparse", "block_sparse": "block-sparse"}
WINDOW = 64
MASKED = f"swa_masked(window_size={WINDOW})"
# The published setting.
CROSSING = "blocksparse(block_size=32, num_global_tokens=1)"
BIDIRECTIONAL = "linear, bidirectional"
_CAUSAL_NAMES = {"linear": "linear, causal (chunked)", "linear_cumsum": "linear, causal (cumsum)"}
MIN_LENGTHS = 3


def main_rows(rows: Sequence[Row], mode: str, *, causal: bool = False) -> list[Measured]:
    """Every series of the AttnBench grid of one mode: without a mask, or linear attention with and without one."""
    found = measured(rows, suites=(SUITE,), mode=mode)
    return [each for each in found if each.cell.group.startswith("causal") == causal]


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


def draw_windows(rows: Sequence[Row]) -> Figure | Absent:
    """Milliseconds above, and below the time over the masked implementation's."""
    by_mode = {
        mode: found
        for mode in MODES
        if any_timed(found := [each for each in main_rows(rows, mode) if _window(each) == WINDOW])
    }
    if not by_mode:
        return missing(f"a sliding window of {WINDOW} with times")
    times = [Panel(title=MODES[mode], lines=time_lines(found, reference=MASKED)) for mode, found in by_mode.items()]
    ratios = [
        Panel(title="", lines=ratio_lines(found, MASKED), label="time over masked", at_one=True)
        for found in by_mode.values()
    ]
    return draw_panels([times, ratios] if any(has_points(panel.lines) for panel in ratios) else [times], height=3)


def _window(each: Measured) -> int | None:
    return each.cell.attention_mapping.get("window_size") if each.mechanism == "sliding_window" else None


def draw_blocksparse(rows: Sequence[Row]) -> Figure | Absent:
    """Speed-up over unfused and over fused attention, forward."""
    found = main_rows(rows, "forward")
    sparse = [each for each in found if (each.mechanism or "").startswith("block_sparse")]
    panels = []
    for rival, name in RIVALS.items():
        against = [each for each in found if each.cell.variant == rival]
        panels.append(
            Panel(
                title=f"speed-up over {name}",
                lines=ratio_lines([*sparse, *against], rival, inverted=True),
                label="speed-up (×)",
                at_one=True,
                extra=functools.partial(_mark_crossover, found=crossover_of(sparse, against)),
            )
        )
    drawn = [panel for panel in panels if has_points(panel.lines)]
    return draw_panels([drawn], height=4) if drawn else missing("block-sparse attention timed beside dense attention")


def crossover_of(sparse: Sequence[Measured], against: Sequence[Measured]) -> Crossover | None:
    """Where the published setting begins to be the faster one; None where too few lengths were timed together."""
    pairs = pairs_of((each for each in sparse if each.cell.variant == CROSSING), against)
    by_length = {pair.cell.length: pair for pair in sorted(pairs, key=lambda pair: pair.cell.length)}
    if len(by_length) < 2:
        return None
    chosen = by_length.values()
    samples = ([pair.numerator.samples for pair in chosen], [pair.denominator.samples for pair in chosen])
    return crossover(list(by_length), *samples)


def _mark_crossover(axes: Axes, *, found: Crossover | None) -> list[str]:
    if found is None:
        text = "crossover: too few lengths"
    elif found.length is None:
        text = f"crossover: none (block-sparse is faster at {found.faster_at})"
    else:
        ends = f"{found.length:.0f} {open_interval(found.low, found.high, '.0f')}".strip()
        text = f"crossover at {ends}: faster at {found.faster_at}"
        axes.axvline(found.length, color=PALETTE[3], linewidth=1.2)
        if found.low is not None and found.high is not None:
            axes.axvspan(found.low, found.high, color=PALETTE[3], alpha=BAND_ALPHA, linewidth=0)
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=8)
    return []


def draw_linear(rows: Sequence[Row]) -> Figure | Absent:
    """Times beside dense attention's, and the causal ones over the bidirectional one."""
    linear = [_named(each) for each in main_rows(rows, "forward", causal=True)]
    dense = [each for each in main_rows(rows, "forward") if each.cell.variant in RIVALS]
    panels = [
        Panel(title="time, forward", lines=time_lines([*linear, *dense], reference=UNFUSED)),
        Panel(
            title="causal over bidirectional",
            lines=ratio_lines(linear, BIDIRECTIONAL),
            label="time over bidirectional",
            at_one=True,
        ),
    ]
    drawn = [panel for panel in panels if has_points(panel.lines)]
    return draw_panels([drawn], height=4) if linear and drawn else missing("linear attention, causal and bidirectional")


def _named(each: Measured) -> Measured:
    """Both masks share a variant's name; here they are different series."""
    name = _CAUSAL_NAMES.get(each.cell.variant, each.cell.variant) if each.cell.causal else BIDIRECTIONAL
    return Measured(row=each.row, cell=each.cell.model_copy(update={"variant": name}))


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
                shown = math.exp(max(-math.log(FURTHEST), min(math.log(FURTHEST), math.log(ratio.ratio))))
                cell = HeatCell(value=shown, text=f"{sure}{ratio.ratio:.2g}")
            cells[each.cell.variant, f"{each.cell.length}"] = cell
    return cells


def draw_slopes(rows: Sequence[Row]) -> Figure | Absent:
    """A point for each series and mode; series with fewer than three lengths say so."""
    found = {mode: exponents(rows, mode) for mode in MODES}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    if not any(exponent is not None for each in found.values() for exponent, _ in each.values()):
        return missing(f"a series at {MIN_LENGTHS} lengths")
    figure = Figure(figsize=(9, 1.2 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    marks = {title: Look(colour=PALETTE[i], line="-", marker=MARKERS[i]) for i, title in enumerate(MODES.values())}
    for (mode, series), offset in zip(found.items(), (-0.16, 0.16), strict=True):
        for name, (exponent, num_lengths) in series.items():
            y = names.index(name) + offset
            if exponent is None:
                axes.text(0.02, y, f"{num_lengths} lengths only", va="center", fontsize=6.5)
            else:
                draw_spot(axes, exponent.value, y, marks[MODES[mode]], x_ends=(exponent.low, exponent.high))
    for power, text in ((1, "linear"), (2, "quadratic")):
        axes.axvline(power, color=INK, linewidth=1, linestyle="--")
        axes.text(power, -0.75, text, ha="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -1.1)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("power of the length with which time grows")
    legend_beside(axes, marks)
    return figure


def exponents(rows: Sequence[Row], mode: str) -> dict[str, tuple[Contrast | None, int]]:
    """Of each series of a mode: its exponent (None below three lengths) and at how many lengths it was timed."""
    found = {}
    for name, series in by_series(main_rows(rows, mode)).items():
        samples = {each.cell.length: each.samples for each in series if each.samples}
        enough = len(samples) >= MIN_LENGTHS
        exponent = scaling_exponent(list(samples), list(samples.values())) if enough else None
        found[name] = (exponent, len(samples))
    return found


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
