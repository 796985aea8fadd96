"""Heat map of speed-ups over unfused attention, centred on 1."""

import math
from collections.abc import Sequence

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from eval.query import Measured, ratio_of, same_rounds
from eval.report.figures.attnbench_rows import MODE_TITLES, MODES, UNFUSED, main_rows, missing
from eval.report.figures.heat import DIVERGING, HeatCell, draw_heat, draw_scale
from eval.report.figures.kind import Absent, FigureKind
from eval.rows import Row

# Colours end at this factor; the text says what is beyond.
FURTHEST = 8.0


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """A row for each series, a column for each length, forward and with gradients."""
    by_mode = {mode: found for mode in MODES if (found := main_rows(rows, mode))}
    cells = {mode: speedup_cells(found) for mode, found in by_mode.items()}
    names = [name for name in _names(by_mode) if name != UNFUSED]
    if not any(cell.value for each in cells.values() for (name, _), cell in each.items() if name in names):
        return Absent(reason=missing("any layer timed beside unfused MHA"))
    lengths = {mode: sorted({each.cell.length for each in found}) for mode, found in by_mode.items()}
    figure = Figure(figsize=(11, 1.4 + 0.27 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(by_mode), squeeze=False, sharey=True)[0]
    scale = LogNorm(vmin=1 / FURTHEST, vmax=FURTHEST)
    for mode, axes in zip(by_mode, panels, strict=True):
        axes.set_title(MODE_TITLES[mode])
        draw_heat(axes, cells[mode], names, [f"{each}" for each in lengths[mode]], colours=DIVERGING, scale=scale)
        axes.set_xlabel("length (tokens)")
    ticks = {each: f"{each:g}×" for each in (0.125, 0.25, 0.5, 1, 2, 4, 8)}
    draw_scale(panels, DIVERGING, scale, ticks, "speed-up over unfused MHA")
    return figure


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


def _names(by_mode: dict[str, list[Measured]]) -> list[str]:
    return list(dict.fromkeys(each.cell.variant for found in by_mode.values() for each in found))


KIND = FigureKind(
    name="speedups",
    title="Speed-ups over unfused attention",
    caption="Blue is faster than unfused MHA, orange slower, grey equal; the colours are logarithmic, centred on 1. "
    "≈: the 95 % interval contains 1; once: a single sample, which has none. Other mechanisms are other functions; "
    "what they cost in quality stands in the table of variants.",
    draw=draw,
)
