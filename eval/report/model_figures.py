"""Figures of whole models: speed against quality and memory, training, recall, and what a kernel is worth there."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from eval.report.charts import ACCURACY, HeatCell, draw_heat_maps
from eval.report.drawing import (
    BAND_ALPHA,
    INK,
    LINESTYLES,
    MARKERS,
    Absent,
    Look,
    byte_axis,
    crowded,
    draw_spot,
    legend_beside,
    log_ticks,
    looks,
    named_looks,
    plain_number,
)
from eval.report.quality import RECALL_TASK, QualityBook, comparable_rows, experiment_of, over_seeds
from eval.report.trainings import Comparison, named_comparisons, trainings
from eval.report.variants import VariantFacts, setting_of, variant_facts
from eval.rows import Quality, Row
from eval.suites.transfer import NAME as TRANSFER
from eval.suites.transfer import predictions

NEEDLE_TASK = "needle"
_VALUES = {"bits_per_byte": "bits per byte", "loss": "loss (nats per token)"}
_BUDGETS = {"equal_tokens": "equal tokens", "equal_seconds": "equal seconds", "checkpoint": "one run"}
Ends = tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spot:
    """A variant in a plane: speed or bytes with the interval, and bits per byte with the deviation over seeds."""

    name: str
    x: float
    x_ends: Ends = (None, None)
    y: float
    y_spread: float | None = None


def draw_pareto(rows: Sequence[Row]) -> Figure | Absent:
    """Bits per byte against training speed, decoding speed, and memory."""
    facts, setting = variant_facts(rows), setting_of(rows)
    if any(each.quality and not each.quality.checkpoint for each in facts):
        # A model that was trained for itself, for as long as it liked, is in no comparison.
        facts = [each for each in facts if each.quality and not each.quality.checkpoint]
    planes = {
        f"training speed over {setting.reference_name} (×), more is better": _spots(
            facts, lambda each: (each.speed.value, each.speed.low, each.speed.high) if each.speed else None
        ),
        "decoding (tokens/s), more is better": _spots(facts, lambda each: each.decoding),
        "peak memory of training, less is better": _spots(
            facts, lambda each: (each.peak_bytes, None, None) if each.peak_bytes else None
        ),
    }
    planes = {label: spots for label, spots in planes.items() if spots}
    if not planes:
        return Absent(reason="no variant has both a speed or memory row of a model, and bits per byte")
    styles = named_looks(spot.name for spots in planes.values() for spot in spots)
    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(planes), squeeze=False, sharey=True)[0]
    for (label, spots), axes in zip(planes.items(), panels, strict=True):
        more_is_better = "more" in label.rpartition(",")[2]
        best = front(spots, more_is_better=more_is_better)
        axes.step([spot.x for spot in best], [spot.y for spot in best], where="post", color=INK, linewidth=1, alpha=0.5)
        for spot in spots:
            y_ends = (None, None) if spot.y_spread is None else (spot.y - spot.y_spread, spot.y + spot.y_spread)
            size = 8 if spot in best else 5
            draw_spot(axes, spot.x, spot.y, styles[spot.name], x_ends=spot.x_ends, y_ends=y_ends, size=size)
        axes.set_xlabel(label)
        (log_ticks if more_is_better else byte_axis)(axes, "x")
    panels[0].set_ylabel(f"bits per byte of {QualityBook(rows).trained(setting.model)}, less is better")
    legend_beside(panels[-1], styles)
    return figure


def _spots(
    facts: Sequence[VariantFacts], found: Callable[[VariantFacts], tuple[float, float | None, float | None] | None]
) -> list[Spot]:
    return [
        Spot(name=each.name, x=x[0], x_ends=x[1:], y=each.quality.mean, y_spread=each.quality.spread)
        for each in facts
        if each.quality and (x := found(each)) is not None
    ]


def front(spots: Sequence[Spot], *, more_is_better: bool) -> list[Spot]:
    """The spots that no other beats in x without losing in y, or equals in one and beats in the other; best x first."""
    ordered = sorted(spots, key=lambda spot: (-spot.x if more_is_better else spot.x, spot.y))
    kept: list[Spot] = []
    for spot in ordered:
        if not kept or spot.y < kept[-1].y:
            kept.append(spot)
    return kept


def draw_loss_curves(rows: Sequence[Row]) -> Figure | Absent:
    """A line of panels for each model, data, metric and budget: left by tokens, right by seconds."""
    experiments = curves(rows)
    if not experiments:
        return Absent(reason="no quality row has a curve of its training")
    names = named_comparisons(experiments)
    if (absent := crowded(2 * len(experiments))) is not None:
        return absent
    figure = Figure(figsize=(10.5, 3.4 * len(experiments)), layout="constrained")
    lines = figure.subplots(len(experiments), 2, squeeze=False)
    for (comparison, variants), panels in zip(experiments.items(), lines, strict=True):
        _, metric, budget, _ = comparison
        styles = dict(zip(variants, looks(), strict=False))
        for axes, by in zip(panels, ("tokens", "seconds"), strict=True):
            for name, seeds in variants.items():
                _draw_curve(axes, mean_curve(list(seeds.values()), by=by), styles[name])
            axes.set_title(f"{names[comparison]}, {_BUDGETS[budget]}")
            axes.set_xlabel(f"training {by}")
            axes.set_ylabel(_VALUES.get(metric, metric))
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        shown = {name: dataclasses.replace(look, marker="None") for name, look in styles.items()}
        legend_beside(panels[-1], shown, lines=True)
    return figure


def curves(rows: Sequence[Row]) -> dict[Comparison, dict[str, dict[int, Quality]]]:
    """Comparison -> variant -> seed -> a training's own figure with its curve; evaluations repeat it beside others."""
    return trainings(row.quality for row in rows if row.quality is not None and row.quality.curve)


def mean_curve(seeds: Sequence[Quality], *, by: str) -> list[tuple[float, float, float, float]]:
    """(x, mean, least, most) of each evaluation that all seeds had; x is their mean too."""
    curve = []
    for points in zip(*(quality.curve for quality in seeds), strict=False):
        values = [point.value for point in points]
        x = statistics.fmean(getattr(point, by) for point in points)
        curve.append((x, statistics.fmean(values), min(values), max(values)))
    return curve


def _draw_curve(axes: Axes, curve: Sequence[tuple[float, float, float, float]], look: Look) -> None:
    xs, means, least, most = ([point[index] for point in curve] for index in range(4))
    # A line through one point is none.
    axes.plot(xs, means, look.line, color=look.colour, marker=look.marker if len(curve) == 1 else None)
    if len(curve) == 1:
        axes.vlines(xs, least, most, color=look.colour, linewidth=1, alpha=0.7)
    axes.fill_between(xs, least, most, color=look.colour, alpha=BAND_ALPHA, linewidth=0)


def _thousands(value: float, _: object = None) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return plain_number(value)


def draw_recall(rows: Sequence[Row]) -> Figure | Absent:
    """Mean over seeds with the spread; a map for each length of the texts."""
    found = accuracies(rows, RECALL_TASK, "num_pairs")
    if not found:
        return Absent(reason=f"no accuracy of task {RECALL_TASK} by number of pairs")
    names = list(dict.fromkeys(quality.variant for _, quality in found))
    maps = {
        f"texts of {length} tokens" if length else "multi-query recall": mean_cells(
            [each for each in found if (each[1].length or 0) == length], "variant", "num_pairs"
        )
        for length in sorted({quality.length or 0 for _, quality in found})
    }
    return draw_heat_maps(maps, names, ACCURACY, labels=("", "pairs to remember"), title=_experiment_words(found))


def draw_needle(rows: Sequence[Row]) -> Figure | Absent:
    """Accuracy, mean over seeds: a map for each variant, depth downwards."""
    found = accuracies(rows, NEEDLE_TASK, "depth")
    if not found:
        return Absent(reason=f"no accuracy of task {NEEDLE_TASK} by length and depth")
    maps = {
        name: mean_cells([each for each in found if each[1].variant == name], "depth", "length")
        for name in dict.fromkeys(quality.variant for _, quality in found)
    }
    depths = [f"{each:g}" for each in sorted({quality.depth or 0.0 for _, quality in found})]
    labels = ("depth", "length (tokens)")
    return draw_heat_maps(maps, depths, ACCURACY, labels=labels, side_by_side=3, title=_experiment_words(found))


def accuracies(rows: Sequence[Row], task: str, axis: str) -> list[tuple[Row, Quality]]:
    """Accuracies of a task along an axis, of one model, data and budget, with those that were skipped; or none."""
    found = comparable_rows(
        row
        for row in rows
        if row.quality is not None
        and row.quality.task == task
        and getattr(row.quality, axis) is not None
        and row.quality.quantity == "accuracy"
    )
    told = [(row, row.quality) for row in found if row.quality is not None]
    return told if any(quality.value is not None for _, quality in told) else []


def mean_cells(found: Iterable[tuple[Row, Quality]], row: str, column: str) -> dict[tuple[str, str], HeatCell]:
    """By two attributes: mean and spread over the seeds of one setting; a status where no seed has a value."""
    groups: dict[tuple[str, str], list[tuple[Row, Quality]]] = {}
    for each in found:
        names = (getattr(each[1], name) or 0 for name in (row, column))
        above, beside = (f"{name:g}" if isinstance(name, float) else f"{name}" for name in names)
        groups.setdefault((above, beside), []).append(each)
    return {key: _mean_cell(own) for key, own in groups.items()}


def _mean_cell(found: Sequence[tuple[Row, Quality]]) -> HeatCell:
    mean = over_seeds(quality for _, quality in found if quality.value is not None)
    if mean is None:
        return HeatCell(value=None, text=found[0][0].status.replace("_", " "))
    spread = "" if mean.spread is None else f" ± {mean.spread:.2f}"
    return HeatCell(value=mean.mean, text=f"{mean.mean:.2f}{spread}")


def _experiment_words(found: Sequence[tuple[Row, Quality]]) -> str:
    """What was trained on what, and under which terms; the rows are those of one figure."""
    quality = found[0][1]
    terms = "trained on equal tokens" if quality.budget == "equal_tokens" else "checkpoints, each trained for itself"
    return f"{experiment_of(quality)}, {terms}"


def draw_transfer(rows: Sequence[Row]) -> Figure | Absent:
    """Predicted against measured speed-up, a panel for each model."""
    found = predictions(row for row in rows if row.cell is not None and row.cell.suite == TRANSFER)
    if not found:
        return Absent(reason=f"no variant has rows of its op and of a model beside the baseline in suite {TRANSFER}")
    models = list(dict.fromkeys(each.model for each in found))
    marks: Mapping[str, str] = dict(zip(dict.fromkeys(each.mode for each in found), MARKERS, strict=False))
    styles = {
        name: dataclasses.replace(look, marker="o") for name, look in named_looks(e.variant for e in found).items()
    }
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for model, axes in zip(models, panels, strict=True):
        own = [each for each in found if each.model == model]
        for each in own:
            look = dataclasses.replace(styles[each.variant], marker=marks[each.mode])
            speed_up = 1 / each.measured.value
            # A speed-up's interval is that of the times, turned round.
            low, high = (None if end is None else 1 / end for end in (each.measured.high, each.measured.low))
            draw_spot(axes, 1 / each.predicted, speed_up, look, y_ends=(low, high))
        told = [1 / value for each in own for value in (each.predicted, each.measured.value)]
        axes.plot([min(told), max(told)], [min(told), max(told)], LINESTYLES[1], color=INK, linewidth=1)
        axes.set_title(model)
        axes.set_xlabel("speed-up by Amdahl's law (×)")
        axes.set_ylabel("measured (×)")
        log_ticks(axes, "x")
        log_ticks(axes, "y")
    modes = {mode.replace("_", " + "): Look(colour=INK, line="-", marker=marker) for mode, marker in marks.items()}
    legend_beside(panels[-1], {**styles, **modes})
    return figure
