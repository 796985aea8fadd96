"""Validation values during training, by tokens and by seconds."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from eval.report.comparisons import Comparison, named_comparisons, trainings
from eval.report.figures.kind import Absent, FigureKind, crowded
from eval.report.figures.style import BAND_ALPHA, Look, looks, plain_number
from eval.rows import Quality, Row

_VALUES = {"bits_per_byte": "bits per byte", "accuracy": "accuracy", "loss": "loss (nats per token)"}
_REGIMES = {"equal_tokens": "equal tokens", "equal_seconds": "equal seconds", "checkpoint": "one run"}

Curve = list[tuple[float, float, float, float]]


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """A line of panels for each model, data, metric and regime: left by tokens, right by seconds."""
    subjects = curves(rows)
    if not subjects:
        return Absent(reason="no quality row has a curve of its training")
    names = named_comparisons(subjects)
    if (absent := crowded(2 * len(subjects))) is not None:
        return absent
    figure = Figure(figsize=(10.5, 3.4 * len(subjects)), layout="constrained")
    for (comparison, variants), panels in zip(
        subjects.items(), figure.subplots(len(subjects), 2, squeeze=False), strict=True
    ):
        _, metric, regime, _ = comparison
        for axes, by, label in zip(panels, ("tokens", "seconds"), ("training tokens", "training seconds"), strict=True):
            styles = looks()
            for name, seeds in variants.items():
                look = next(styles)
                _draw_curve(axes, mean_curve(list(seeds.values()), by=by), name, look)
            axes.set_title(f"{names[comparison]}, {_REGIMES[regime]}")
            axes.set_xlabel(label)
            axes.set_ylabel(_VALUES.get(metric, metric))
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def curves(rows: Sequence[Row]) -> dict[Comparison, dict[str, dict[int, Quality]]]:
    """Comparison -> variant -> seed -> a training's own figure with its curve; evaluations repeat it beside others."""
    return trainings(row.quality for row in rows if row.quality is not None and row.quality.curve)


def mean_curve(seeds: Sequence[Quality], *, by: str) -> Curve:
    """(x, mean, least, most) of each evaluation that all seeds had; x is their mean too."""
    curve = []
    for points in zip(*(quality.curve for quality in seeds), strict=False):
        values = [point.value for point in points]
        x = statistics.fmean(point.tokens if by == "tokens" else point.seconds for point in points)
        curve.append((x, statistics.fmean(values), min(values), max(values)))
    return curve


def _draw_curve(axes: Axes, curve: Curve, name: str, look: Look) -> None:
    xs = [x for x, *_ in curve]
    # A line through one point is none.
    marker = look.marker if len(curve) == 1 else None
    axes.plot(xs, [mean for _, mean, *_ in curve], look.line, color=look.colour, label=name, marker=marker)
    least, most = [low for *_, low, _ in curve], [high for *_, high in curve]
    if len(curve) == 1:
        axes.vlines(xs, least, most, color=look.colour, linewidth=1, alpha=0.7)
    axes.fill_between(xs, least, most, color=look.colour, alpha=BAND_ALPHA, linewidth=0)


def _thousands(value: float, _: object = None) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return plain_number(value)


KIND = FigureKind(
    name="loss_curves",
    title="Quality while training",
    caption="Validation values, mean over seeds with their range as a band: by tokens, where all have read the same, "
    "and by seconds of training, where a faster variant is further on.",
    draw=draw,
)
