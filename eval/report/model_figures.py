"""Figures of whole models: speed against quality and memory, training, recall, and what a kernel is worth there."""

import functools
import statistics
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from eval.query import grouped
from eval.report.charts import ACCURACY, HeatCell, Panel, Point, draw_heat_maps, draw_panels
from eval.report.drawing import INK, MARKERS, draw_spot, exactly, figure, legend_beside, looks, value_axis
from eval.report.quality import RECALL_TASK, comparable, experiment_of, over_seeds
from eval.report.trainings import named_comparisons, trainings
from eval.report.variants import Variants
from eval.rows import Quality, Row
from eval.statistics import Contrast
from eval.suites.transfer import NAME as TRANSFER
from eval.suites.transfer import predictions

NEEDLE_TASK = "needle"
_VALUES = {"bits_per_byte": "bits per byte", "loss": "loss (nats per token)"}
_BUDGETS = {"equal_tokens": "equal tokens", "equal_seconds": "equal seconds", "checkpoint": "one run"}


@figure(
    "Speed, quality and memory",
    "Each variant's bits per byte at equal tokens against what it costs in the same model. Bars are 95 % intervals of "
    "speeds and standard deviations over seeds; large marks on the stepped line are variants that no other beats in "
    "one without losing in the other.",
)
def pareto(rows: Sequence[Row]) -> Figure | str:
    """Bits per byte against training speed, decoding speed, and memory."""
    variants = Variants(rows)
    reached = [(each, each.quality) for each in variants.facts if each.quality]
    # A model that was trained for itself, for as long as it liked, is in no comparison.
    reached = [each for each in reached if not each[1].checkpoint] or reached
    costs = {
        f"training speed over {variants.reference_name} (×), more is better": lambda each: each.speed,
        "decoding (tokens/s), more is better": lambda each: each.decoding,
        "peak memory of training, less is better": lambda each: exactly(each.peak_bytes) if each.peak_bytes else None,
    }
    planes = {
        label: {each.name: (x, y.figure) for each, y in reached if (x := cost(each)) is not None}
        for label, cost in costs.items()
    }
    planes = {label: spots for label, spots in planes.items() if spots}
    if not planes:
        return "no variant has both a speed or memory row of a model, and bits per byte"
    styles = looks((name for spots in planes.values() for name in spots), linestyle="none")
    drawn = Figure(figsize=(11.5, 4.2), layout="constrained")
    panels = drawn.subplots(1, len(planes), squeeze=False, sharey=True)[0]
    for (label, spots), axes in zip(planes.items(), panels, strict=True):
        more_is_better = "more" in label.rpartition(",")[2]
        best = front([(x.value, y.value) for x, y in spots.values()], more_is_better=more_is_better)
        axes.step(*zip(*best, strict=True), where="post", color=INK, linewidth=1, alpha=0.5)
        for name, (x, y) in spots.items():
            draw_spot(axes, x, y, styles[name], size=8 if (x.value, y.value) in best else 5)
        axes.set_xlabel(label)
        value_axis(axes.xaxis, of_bytes=not more_is_better)
    panels[0].set_ylabel(f"bits per byte of {variants.trained}, less is better")
    legend_beside(panels[-1], styles)
    return drawn


def front(spots: Iterable[tuple[float, float]], *, more_is_better: bool) -> list[tuple[float, float]]:
    """The spots that no other beats in x without losing in y, or equals in one and beats in the other; best x first."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(spots, key=lambda spot: (-spot[0] if more_is_better else spot[0], spot[1])):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


@figure(
    "Quality while training",
    "Validation values, mean over seeds with their range as a band: by tokens, where all have read the same, and by "
    "seconds of training, where a faster variant is further on.",
)
def loss_curves(rows: Sequence[Row]) -> Figure | str:
    """A line of panels for each model, data, metric and budget: left by tokens, right by seconds."""
    # A training's own figures: evaluations repeat its curve beside others.
    compared = trainings(row.quality for row in rows if row.quality is not None and row.quality.curve)
    if not compared:
        return "no quality row has a curve of its training"
    names = named_comparisons(compared)
    grid = []
    for comparison, variants in compared.items():
        title = f"{names[comparison]}, {_BUDGETS[comparison.budget]}"
        value = _VALUES.get(comparison.quantity, comparison.quantity)
        panels = []
        for by in ("tokens", "seconds"):
            lines = {name: mean_curve(list(seeds.values()), by=by) for name, seeds in variants.items()}
            label_axes = functools.partial(_label_curves, over=by, value=value)
            panels.append(Panel(title, lines, label_axes))
        grid.append(panels)
    return draw_panels(grid, height=3.4, dots=False)


def mean_curve(seeds: Sequence[Quality], *, by: str) -> list[Point]:
    """The mean of each evaluation that all seeds had, between the least and the most; x is their mean too."""
    curve = []
    for points in zip(*(quality.curve for quality in seeds), strict=False):
        values = [point.value for point in points]
        x = statistics.fmean(getattr(point, by) for point in points)
        curve.append(Point(x, statistics.fmean(values), min(values), max(values)))
    return curve


def _label_curves(axes: Axes, *, over: str, value: str) -> None:
    axes.set(xlabel=f"training {over}", ylabel=value)
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _thousands(value: float, _: object = None) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


@figure(
    "Recall: accuracy by number of pairs",
    "Multi-query associative recall, mean over seeds ± standard deviation, on examples that neither training nor "
    "validation saw. The setting was chosen for full attention to learn the task: what the others reach is what they "
    "reach in that many steps.",
)
def recall(rows: Sequence[Row]) -> Figure | str:
    """A map for each length of the texts."""
    found = accuracies(rows, RECALL_TASK, "num_pairs")
    if not found:
        return f"no accuracy of task {RECALL_TASK} by number of pairs"
    by_length = grouped(found, lambda each: each[0].length or 0)
    maps = {
        f"texts of {length} tokens" if length else "multi-query recall": mean_cells(own, "variant", "num_pairs")
        for length, own in sorted(by_length.items())
    }
    return draw_heat_maps(maps, ACCURACY, labels=("", "pairs to remember"), title=_experiment_words(found))


@figure(
    "Needle maps",
    "Share of passkey tokens retrieved, by length of the context and depth of the passkey (0: beginning, 1: end), mean "
    "over seeds. The setting was chosen for full attention to learn the task. One layer sees no further back than its "
    "window, and n layers no further than n windows.",
)
def needle(rows: Sequence[Row]) -> Figure | str:
    """Accuracy, mean over seeds: a map for each variant, depth downwards."""
    found = accuracies(rows, NEEDLE_TASK, "depth")
    if not found:
        return f"no accuracy of task {NEEDLE_TASK} by length and depth"
    by_depth = sorted(found, key=lambda each: each[0].depth or 0)
    by_variant = grouped(by_depth, lambda each: each[0].variant)
    maps = {name: mean_cells(own, "depth", "length") for name, own in by_variant.items()}
    return draw_heat_maps(maps, ACCURACY, labels=("depth", "length (tokens)"), title=_experiment_words(found))


def accuracies(rows: Sequence[Row], task: str, axis: str) -> list[tuple[Quality, str]]:
    """Accuracies of a task along an axis with their status: of one experiment and budget, or none without any value."""
    along = [(row.quality, row.status) for row in rows if row.quality is not None and row.quality.task == task]
    along = [each for each in along if each[0].quantity == "accuracy" and getattr(each[0], axis) is not None]
    asked = {id(each[0]): each for each in along}
    kept = comparable(quality for quality, _ in asked.values())
    # Checkpoints count only where nothing was compared at equal tokens.
    kept = [quality for quality in kept if quality.budget == "equal_tokens"] or kept
    return [asked[id(quality)] for quality in kept] if any(quality.value is not None for quality in kept) else []


def mean_cells(found: Iterable[tuple[Quality, str]], row: str, column: str) -> dict[tuple[str, str], HeatCell]:
    """By two attributes: mean and spread over the seeds of one setting; a status where no seed has a value."""

    def place(each: tuple[Quality, str]) -> tuple[str, str]:
        above, beside = (getattr(each[0], name) or 0 for name in (row, column))
        return (f"{above:g}" if isinstance(above, float) else f"{above}"), f"{beside}"

    cells = {}
    for key, own in grouped(found, place).items():
        mean = over_seeds(quality for quality, _ in own)
        if mean is None:
            cells[key] = HeatCell(None, own[0][1].replace("_", " "))
        else:
            spread = "" if mean.spread is None else f" ± {mean.spread:.2f}"
            cells[key] = HeatCell(mean.mean, f"{mean.mean:.2f}{spread}")
    return cells


def _experiment_words(found: Sequence[tuple[Quality, str]]) -> str:
    """What was trained on what, and under which terms; the rows are those of one figure."""
    quality = found[0][0]
    terms = "trained on equal tokens" if quality.budget == "equal_tokens" else "checkpoints, each trained for itself"
    return f"{experiment_of(quality)}, {terms}"


@figure(
    "From the kernel to the model",
    "Speed-ups over unfused MHA of whole models, against what Amdahl's law makes of the op's own speed-up and of "
    "attention's share of the model's time. Points below the line lost on the way.",
)
def transfer(rows: Sequence[Row]) -> Figure | str:
    """Predicted against measured speed-up, a panel for each model."""
    found = predictions(row for row in rows if row.cell is not None and row.cell.suite == TRANSFER)
    if not found:
        return f"no variant has rows of its op and of a model beside the baseline in suite {TRANSFER}"
    by_model = grouped(found, lambda each: each.model)
    marks = dict(zip(dict.fromkeys(each.mode for each in found), MARKERS, strict=False))
    styles = looks((each.variant for each in found), marker="o", linestyle="none")
    drawn = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = drawn.subplots(1, len(by_model), squeeze=False)[0]
    for (model, own), axes in zip(by_model.items(), panels, strict=True):
        for each in own:
            # A speed-up's interval is that of the times, turned round.
            low, high = (None if end is None else 1 / end for end in (each.measured.high, each.measured.low))
            y = Contrast(value=1 / each.measured.value, low=low, high=high)
            draw_spot(axes, exactly(1 / each.predicted), y, {**styles[each.variant], "marker": marks[each.mode]})
        told = [1 / value for each in own for value in (each.predicted, each.measured.value)]
        axes.plot([min(told), max(told)], [min(told), max(told)], "--", color=INK, linewidth=1)
        axes.set(title=model, xlabel="speed-up by Amdahl's law (×)", ylabel="measured (×)")
        value_axis(axes.xaxis)
        value_axis(axes.yaxis)
    modes = {
        mode.replace("_", " + "): {"color": INK, "linestyle": "none", "marker": mark} for mode, mark in marks.items()
    }
    legend_beside(panels[-1], {**styles, **modes})
    return drawn
