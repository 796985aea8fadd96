"""Memory over length: the decoding cache, and the peak of forward and backward passes."""

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from eval.query import Measured, measured
from eval.report.figures.kind import Absent, FigureKind, crowded
from eval.report.figures.lines import draw_panel, size_lines
from eval.report.figures.style import byte_axis, status_key
from eval.rows import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """What one panel draws.

    Attributes:
        title: Above it.
        rows: All series.
        size: Measured bytes.
        formula: Bytes where nothing was measured, or None.
    """

    title: str
    rows: list[Measured]
    size: Callable[[Measured], int | None]
    formula: Callable[[Measured], int | None] | None = None


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """A panel for the cache of each model, and one for the peak of each mode of the long lengths."""
    panels = _panels(rows)
    if not panels:
        return Absent(reason="no rows with cache bytes (suite decode), nor with peak bytes over length (suite long)")
    if (absent := crowded(len(panels))) is not None:
        return absent
    figure = Figure(figsize=(10.5, 3.6 * len(panels)), layout="constrained")
    marked: list[str] = []
    for axes, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        lines = size_lines(panel.rows, panel.size, panel.formula)
        marked += draw_panel(axes, lines, title=panel.title, label="", value_axis=byte_axis)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    status_key(figure, marked)
    return figure


def _panels(rows: Sequence[Row]) -> list[Panel]:
    decoding = measured(rows, mode="decode")
    settings = dict.fromkeys(_decoded(each) for each in decoding if each.cache_bytes)
    panels = [
        Panel(
            title=f"cache while decoding, {model or 'one layer'}, B={batch_size}, {dtype}",
            rows=[each for each in decoding if _decoded(each) == (model, batch_size, dtype)],
            size=lambda each: each.cache_bytes,
            formula=lambda each: each.analytic_cache_bytes,
        )
        for model, batch_size, dtype in settings
    ]
    long = measured(rows, suites=("long",))
    for level, mode, heads in dict.fromkeys(_kind(each) for each in long if each.peak_bytes):
        found = [each for each in long if _kind(each) == (level, mode, heads)]
        # Short lengths are timed only: that they have no peak is no gap.
        known = {each.cell.length for each in found if each.peak_bytes}
        title = f"peak of one {level}, {mode.replace('_', ' + ')}, {heads} head{'s' if heads > 1 else ''}"
        chosen = [each for each in found if each.cell.length in known]
        panels.append(Panel(title=title, rows=chosen, size=lambda each: each.peak_bytes))
    return panels


def _decoded(each: Measured) -> tuple[str | None, int, str]:
    return each.cell.model, each.cell.batch_size, each.cell.dtype


def _kind(each: Measured) -> tuple[str, str, int]:
    return each.cell.level, each.cell.mode, each.cell.num_heads


KIND = FigureKind(
    name="decode_memory",
    title="Memory over length",
    caption="Bytes of MLX's allocator in a process of its own; hollow: by formula, not measured. A cache that stays "
    "level belongs to a mechanism with a window or a fixed state; a peak that grows twice as steeply as the length is "
    "a score matrix.",
    draw=draw,
)
