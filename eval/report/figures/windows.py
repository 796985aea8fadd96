"""One sliding window, computed four ways: the same function, so that times compare."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.report.figures.attnbench_rows import MODE_TITLES, MODES, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_legend, draw_lines, lengths_of, own_looks, ratio_lines, time_lines
from eval.report.figures.style import INK, length_axis, log_ticks, status_key
from eval.report.selection import Measured
from eval.rows import Row

WINDOW = 64
MASKED = f"swa_masked(window_size={WINDOW})"


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Milliseconds above, and below the time over the masked implementation's."""
    by_mode = {
        mode: found
        for mode in MODES
        if (found := [e for e in main_rows(rows, mode) if e.mechanism == "sliding_window" and _window(e) == WINDOW])
    }
    if not by_mode:
        return Absent(reason=missing(f"a sliding window of {WINDOW}"))
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    panels = figure.subplots(2, len(by_mode), squeeze=False, sharex="col")
    marked: list[str] = []
    every = [line for found in by_mode.values() for line in time_lines(found, references=(MASKED,))]
    styles = own_looks(every)
    for column, (mode, found) in enumerate(by_mode.items()):
        times = time_lines(found, references=(MASKED,))
        above, below = panels[0][column], panels[1][column]
        above.set_title(MODE_TITLES[mode])
        marked += draw_lines(above, times, styles)
        above.set_ylabel("ms")
        log_ticks(above, "y")
        ratios = ratio_lines(found, MASKED)
        draw_lines(below, [line for line in ratios if line.points], styles)
        below.axhline(1, color=INK, linewidth=1, linestyle="--")
        below.set_ylabel("time over masked")
        length_axis(below, lengths_of(times))
        log_ticks(below, "y")
    draw_legend(panels[0][-1], every, styles)
    draw_legend(panels[1][-1], [line for line in every if not line.reference], styles)
    status_key(figure, marked)
    return figure


def _window(each: Measured) -> int | None:
    return each.cell.attention_mapping.get("window_size")


KIND = FigureKind(
    name="windows",
    title="Sliding window: chunked, masked, gathered, sliced",
    caption=f"The same window of {WINDOW} keys by four implementations: chunk by chunk, the dense matrix masked "
    "(dashed, and the line at 1), keys gathered by index, and one slice a query, as published. Published: gathering "
    "is 5.7 to 7.3 times as slow as masking.",
    draw=draw,
)
