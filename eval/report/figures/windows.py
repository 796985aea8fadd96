"""One sliding window, computed four ways: the same function, so that times compare."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.query import Measured, any_timed
from eval.report.figures.attnbench_rows import MODE_TITLES, MODES, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_legend, draw_panel, lengths_of, own_looks, ratio_lines, time_lines
from eval.report.figures.style import length_axis, status_key
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
    if not any(any_timed(found) for found in by_mode.values()):
        return Absent(reason=missing(f"a sliding window of {WINDOW} with times"))
    compared = {mode: [line for line in ratio_lines(found, MASKED) if line.points] for mode, found in by_mode.items()}
    num_lines = 2 if any(compared.values()) else 1
    figure = Figure(figsize=(10.5, 3 * num_lines), layout="constrained")
    panels = figure.subplots(num_lines, len(by_mode), squeeze=False, sharex="col")
    marked: list[str] = []
    every = [line for found in by_mode.values() for line in time_lines(found, references=(MASKED,))]
    styles = own_looks(every)
    for column, (mode, found) in enumerate(by_mode.items()):
        times = time_lines(found, references=(MASKED,))
        marked += draw_panel(panels[0][column], times, title=MODE_TITLES[mode], label="ms", styles=styles)
        if num_lines == 2:
            below = panels[1][column]
            panels[0][column].set_xlabel("")
            draw_panel(below, compared[mode], title="", label="time over masked", styles=styles, at_one=True)
            length_axis(below, lengths_of(times))
            draw_legend(panels[1][-1], [line for line in every if not line.reference], styles)
    draw_legend(panels[0][-1], every, styles)
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
