"""Needle in a haystack: a map of length and depth for each variant."""

import math
from collections.abc import Sequence

from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from eval.report.figures.heat import SEQUENTIAL, draw_heat, draw_scale
from eval.report.figures.kind import Absent, FigureKind, crowded
from eval.report.figures.recall import mean_cell, subject_words
from eval.report.qualities import comparable_rows, has_value
from eval.rows import Row

TASK = "needle"
_COLUMNS = 3


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Accuracy, mean over seeds: a panel for each variant, depth downwards."""
    found = comparable_rows(row for row in rows if _is_of_map(row))
    if not any(row.quality and has_value(row.quality) for row in found):
        return Absent(reason=f"no accuracy of task {TASK} by length and depth")
    names = list(dict.fromkeys(row.quality.variant for row in found if row.quality))
    lengths = sorted({row.quality.length or 0 for row in found if row.quality})
    depths = sorted({row.quality.depth or 0.0 for row in found if row.quality})
    if (absent := crowded(len(names))) is not None:
        return absent
    num_lines = math.ceil(len(names) / _COLUMNS)
    height = 0.3 + num_lines * (0.9 + 0.3 * len(depths))
    figure = Figure(figsize=(10.5, max(2.2, height)), layout="constrained")
    figure.suptitle(subject_words(found))
    panels = figure.subplots(num_lines, _COLUMNS, squeeze=False).ravel()
    scale = Normalize(vmin=0, vmax=1)
    for axes, name in zip(panels, names, strict=False):
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in found:
            quality = row.quality
            if quality is not None and quality.variant == name:
                groups.setdefault((f"{quality.depth or 0.0:g}", f"{quality.length or 0}"), []).append(row)
        axes.set_title(name)
        cells = {key: mean_cell(each) for key, each in groups.items()}
        draw_heat(axes, cells, [f"{d:g}" for d in depths], [f"{n}" for n in lengths], colours=SEQUENTIAL, scale=scale)
        axes.set_xlabel("length (tokens)")
        axes.set_ylabel("depth")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    draw_scale(list(panels), SEQUENTIAL, scale, {0: "0", 0.5: "0.5", 1: "1"}, "accuracy")
    return figure


def _is_of_map(row: Row) -> bool:
    quality = row.quality
    return quality is not None and quality.task == TASK and quality.depth is not None and quality.quantity == "accuracy"


KIND = FigureKind(
    name="needle",
    title="Needle maps",
    caption="Share of passkey tokens retrieved, by length of the context and depth of the passkey (0: beginning, 1: "
    "end), mean over seeds. The setting was chosen for full attention to learn the task. One layer sees no further "
    "back than its window, and n layers no further than n windows.",
    draw=draw,
)
