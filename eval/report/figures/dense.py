"""Dense attention with fewer key/value heads: its times, and the true bytes of its cache."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.query import Measured, measured, most_common_rounds, same_rounds
from eval.report.figures.attnbench_rows import UNFUSED, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_panel, has_points, time_lines
from eval.report.figures.style import (
    INK,
    PALETTE,
    STATUS_MARKERS,
    status_key,
)
from eval.report.heads import same_by_heads
from eval.report.wording import num_bytes
from eval.rows import Row

WHOLE = "mha"
PUBLISHED_HEADS = 8


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Milliseconds of the layer; bytes that decoding held at the longest length."""
    found = [each for each in main_rows(rows, "forward") if each.mechanism == "softmax"]
    cached = cache_rows(rows)
    lines = time_lines(found, references=(UNFUSED,))
    shown = [has_points(lines), any(each.cache_bytes for each in cached)]
    if not any(shown):
        return Absent(reason=missing("softmax attention with times or a cache"))
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    panels = list(figure.subplots(1, sum(shown), squeeze=False)[0])
    marked: list[str] = []
    if shown[0]:
        marked += draw_panel(panels[0], lines, title="one layer, forward", label="ms")
        panels[0].legend(loc="upper left")
    if shown[1]:
        marked += _draw_cache(panels[-1], cached)
    status_key(figure, marked)
    return figure


def cache_rows(rows: Sequence[Row]) -> list[Measured]:
    """Decoding rows of softmax attention in one group: of the published heads, else the one with most of them."""
    decoding = [each for each in measured(rows, mode="decode") if each.mechanism == "softmax"]
    published = [each for each in decoding if _has_published_heads(each) and each.cache_bytes]
    decoding = [each for each in decoding if each.place in {other.place for other in published}] or decoding
    return most_common_rounds(same_rounds(each for each in decoding if each.cache_bytes or each.row.status != "ok"))


def _draw_cache(axes: Axes, rows: Sequence[Measured]) -> list[str]:
    axes.set_title("key/value cache, measured")
    names = [each.cell.variant for each in rows]
    whole = next((each.cache_bytes for each in rows if each.cell.variant == WHOLE), None)
    marked: list[str] = []
    for y, each in enumerate(rows):
        if not each.cache_bytes:
            axes.plot([0], [y], marker=STATUS_MARKERS.get(each.row.status, "x"), color=INK)
            marked.append(each.row.status)
            continue
        axes.barh(y, each.cache_bytes, height=0.6, color=PALETTE[0])
        analytic = None if each.row.memory is None else each.row.memory.analytic_cache_bytes
        if analytic is not None:
            axes.plot([analytic, analytic], [y - 0.4, y + 0.4], color=INK, linewidth=1.5)
        change = "" if not whole or each.cell.variant == WHOLE else f", {each.cache_bytes / whole - 1:+.1%}"
        axes.annotate(
            f"{num_bytes(each.cache_bytes)}{change}",
            (each.cache_bytes, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(names)), names)
    # A few bars keep the width of many.
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
    axes.margins(x=0.45)
    axes.set_xlim(left=0)
    # Every bar says its size.
    axes.set_xticks([])
    cell = rows[0].cell
    words = [f"bytes at {cell.length} tokens, {cell.model or cell.level}; line: by formula"]
    words += [f"published for MQA at {PUBLISHED_HEADS} heads: −87.5 %"] * _has_published_heads(rows[0])
    axes.set_xlabel("\n".join([*words, *(textwrap.fill(each, 60) for each in same_by_heads(rows))]))
    return marked


def _has_published_heads(each: Measured) -> bool:
    cell = each.cell
    return cell.num_heads == PUBLISHED_HEADS == (cell.num_kv_heads or cell.num_heads)


KIND = FigureKind(
    name="dense",
    title="Dense variants: fused, unfused, tiled, and fewer key/value heads",
    caption="Left: one layer, forward. Right: what the decoding cache really held, with its size by formula. "
    "Published: MQA slower than MHA. Where a model's own heads share keys and values, mha is what gqa is "
    "there, and has that much less to save.",
    draw=draw,
)
