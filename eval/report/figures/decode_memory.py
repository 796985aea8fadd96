"""Memory over length: the decoding cache, and the peak of forward and backward passes."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_lines, lengths_of, size_lines
from eval.report.figures.style import byte_ticks, length_axis, log_ticks, status_key
from eval.report.selection import Measured, measured
from eval.rows import Row


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """A panel for the cache of each model, and one for the peak of each mode of the long lengths."""
    panels = _panels(rows)
    if not panels:
        return Absent(reason="no rows with cache bytes (suite decode), nor with peak bytes over length (suite long)")
    figure = Figure(figsize=(10.5, 3.6 * len(panels)), layout="constrained")
    marked: list[str] = []
    for axes, (title, found, size) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        lines = size_lines(found, size)
        axes.set_title(title)
        marked += draw_lines(axes, lines)
        length_axis(axes, lengths_of(lines))
        log_ticks(axes, "y", FuncFormatter(byte_ticks))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    status_key(figure, marked)
    return figure


Panel = tuple[str, list[Measured], Callable[[Measured], int | None]]


def _panels(rows: Sequence[Row]) -> list[Panel]:
    decoding = measured(rows, mode="decode")
    models = list(dict.fromkeys((each.cell.model, each.cell.batch_size) for each in decoding if each.cache_bytes))
    panels: list[Panel] = [
        (
            f"cache while decoding, {model or 'one layer'}, B={batch_size}",
            [each for each in decoding if (each.cell.model, each.cell.batch_size) == (model, batch_size)],
            lambda each: each.cache_bytes,
        )
        for model, batch_size in models
    ]
    long = measured(rows, suites=("long",))
    kinds = dict.fromkeys((each.cell.level, each.cell.mode, each.cell.model) for each in long if each.peak_bytes)
    for level, mode, model in kinds:
        found = [each for each in long if (each.cell.level, each.cell.mode, each.cell.model) == (level, mode, model)]
        title = f"peak, {level}, {mode.replace('_', ' + ')}" + (f", {model}" if model else "")
        panels.append((title, found, lambda each: each.peak_bytes))
    return panels


KIND = FigureKind(
    name="decode_memory",
    title="Memory over length",
    caption="Bytes of MLX's allocator in a process of its own. A cache that stays level belongs to a mechanism with a "
    "window or a fixed state; a peak that grows twice as steeply as the length is a score matrix.",
    draw=draw,
)
