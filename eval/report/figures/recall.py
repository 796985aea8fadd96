"""Multi-query associative recall: accuracy by variant and number of pairs."""

from collections.abc import Sequence

from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from eval.report.figures.heat import SEQUENTIAL, HeatCell, draw_heat, draw_scale
from eval.report.figures.kind import Absent, FigureKind, crowded
from eval.report.qualities import RECALL_TASK, has_value, one_per_seed, over_seeds, recall_rows, subject_of
from eval.rows import Quality, Row


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Mean over seeds with the spread; a panel for each length of the rows."""
    found = recall_rows(rows)
    if not any(row.quality and has_value(row.quality) for row in found):
        return Absent(reason=f"no accuracy of task {RECALL_TASK} by number of pairs")
    names = list(dict.fromkeys(row.quality.variant for row in found if row.quality))
    lengths = sorted({row.quality.length or 0 for row in found if row.quality})
    if (absent := crowded(len(lengths))) is not None:
        return absent
    figure = Figure(figsize=(3.2 + 3.9 * len(lengths), max(2.6, 1.7 + 0.34 * len(names))), layout="constrained")
    figure.suptitle(subject_words(found))
    panels = figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0]
    scale = Normalize(vmin=0, vmax=1)
    for length, axes in zip(lengths, panels, strict=True):
        own = [row for row in found if row.quality and (row.quality.length or 0) == length]
        columns = sorted({row.quality.num_pairs or 0 for row in own if row.quality})
        axes.set_title(f"rows of {length} tokens" if length else "multi-query recall")
        draw_heat(axes, cells(own), names, [f"{each}" for each in columns], colours=SEQUENTIAL, scale=scale)
        axes.set_xlabel("pairs to remember")
    draw_scale(panels, SEQUENTIAL, scale, {0: "0", 0.5: "0.5", 1: "1"}, "accuracy")
    return figure


def subject_words(rows: Sequence[Row]) -> str:
    """What was trained on what, and under which terms; the rows are those of one figure."""
    quality = rows[0].quality
    assert quality is not None, "rows of quality"
    terms = "trained on equal tokens" if quality.regime == "equal_tokens" else "checkpoints, each trained for itself"
    return f"{subject_of(quality)}, {terms}"


def cells(rows: Sequence[Row]) -> dict[tuple[str, str], HeatCell]:
    """By variant and number of pairs."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        assert row.quality is not None
        groups.setdefault((row.quality.variant, f"{row.quality.num_pairs}"), []).append(row)
    return {key: mean_cell(each) for key, each in groups.items()}


def mean_cell(rows: Sequence[Row]) -> HeatCell:
    """Mean and spread over the seeds of one setting; a status where no seed has a value."""
    with_value: list[Quality] = [row.quality for row in rows if row.quality and row.quality.value is not None]
    found = over_seeds(each.value for each in one_per_seed(with_value).values() if each.value is not None)
    if found is None:
        return HeatCell(value=None, text=rows[0].status.replace("_", " "))
    spread = "" if found.spread is None else f" ± {found.spread:.2f}"
    return HeatCell(value=found.mean, text=f"{found.mean:.2f}{spread}")


KIND = FigureKind(
    name="recall",
    title="Recall: accuracy by number of pairs",
    caption="Multi-query associative recall, mean over seeds ± standard deviation, on examples that neither training "
    "nor validation saw. The setting was chosen for full attention to learn the task: what the others reach is what "
    "they reach in that many steps.",
    draw=draw,
)
