"""Speed, quality and memory against each other, and the variants that none beats in both."""

import dataclasses
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.style import INK, Look, byte_axis, log_ticks, named_looks
from eval.report.qualities import QualityBook
from eval.report.tables.variants import VariantFacts, setting_of, variant_facts
from eval.rows import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spot:
    """A variant in a plane.

    Attributes:
        name: The variant.
        x: Speed or bytes.
        x_low: Lower end of its interval.
        x_high: Upper end.
        y: Bits per byte.
        y_spread: Its standard deviation over seeds.
    """

    name: str
    x: float
    x_low: float | None
    x_high: float | None
    y: float
    y_spread: float | None


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Bits per byte against training speed, decoding speed, and memory."""
    facts = variant_facts(rows)
    if any(each.quality and not each.quality.checkpoint for each in facts):
        # A model that was trained for itself, for as long as it liked, is in no comparison.
        facts = [each for each in facts if each.quality and not each.quality.checkpoint]
    planes = {
        f"training speed over {setting_of(rows).reference_name} (×)": (_training(facts), True),
        "decoding (tokens/s)": (_decoding(facts), True),
        "peak memory of training": (_memory(facts), False),
    }
    planes = {label: plane for label, plane in planes.items() if plane[0]}
    if not planes:
        return Absent(reason="no variant has both a speed or memory row of a model, and bits per byte")
    names = list(dict.fromkeys(spot.name for spots, _ in planes.values() for spot in spots))
    styles = named_looks(names)
    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(planes), squeeze=False, sharey=True)[0]
    for (label, (spots, more_is_better)), axes in zip(planes.items(), panels, strict=True):
        _draw_plane(axes, spots, styles, more_is_better=more_is_better)
        axes.set_xlabel(f"{label}, {'more' if more_is_better else 'less'} is better")
        if more_is_better:
            log_ticks(axes, "x")
        else:
            byte_axis(axes, "x")
    trained = QualityBook(rows).trained(setting_of(rows).model)
    panels[0].set_ylabel(f"bits per byte of {trained}, less is better")
    for name, look in styles.items():
        panels[-1].plot([], [], look.marker, color=look.colour, label=name)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def front(spots: Sequence[Spot], *, more_is_better: bool) -> list[Spot]:
    """The spots that no other beats in x without losing in y, or equals in one and beats in the other; best x first."""
    ordered = sorted(spots, key=lambda spot: (-spot.x if more_is_better else spot.x, spot.y))
    kept: list[Spot] = []
    for spot in ordered:
        if not kept or spot.y < kept[-1].y:
            kept.append(spot)
    return kept


def _draw_plane(axes: Axes, spots: Sequence[Spot], styles: dict[str, Look], *, more_is_better: bool) -> None:
    best = front(spots, more_is_better=more_is_better)
    axes.step([spot.x for spot in best], [spot.y for spot in best], where="post", color=INK, linewidth=1, alpha=0.5)
    for spot in spots:
        look = styles[spot.name]
        colour = look.colour
        if spot.x_low is not None and spot.x_high is not None:
            axes.plot([spot.x_low, spot.x_high], [spot.y, spot.y], color=colour, linewidth=1.4, alpha=0.6)
        if spot.y_spread is not None:
            ends = [spot.y - spot.y_spread, spot.y + spot.y_spread]
            axes.plot([spot.x, spot.x], ends, color=colour, linewidth=1.4, alpha=0.6)
        size = 8 if spot in best else 5
        axes.plot([spot.x], [spot.y], marker=look.marker, color=colour, markersize=size, linestyle="none")


def _training(facts: Sequence[VariantFacts]) -> list[Spot]:
    return [
        _spot(each, each.speed.ratio, each.speed.low, each.speed.high) for each in facts if each.quality and each.speed
    ]


def _decoding(facts: Sequence[VariantFacts]) -> list[Spot]:
    return [_spot(each, *each.decoding) for each in facts if each.quality and each.decoding]


def _memory(facts: Sequence[VariantFacts]) -> list[Spot]:
    return [_spot(each, each.peak_bytes, None, None) for each in facts if each.quality and each.peak_bytes]


def _spot(facts: VariantFacts, x: float, low: float | None, high: float | None) -> Spot:
    assert facts.quality is not None, "only variants with a quality are spots"
    return Spot(name=facts.name, x=x, x_low=low, x_high=high, y=facts.quality.mean, y_spread=facts.quality.spread)


KIND = FigureKind(
    name="pareto",
    title="Speed, quality and memory",
    caption="Each variant's bits per byte at equal tokens against what it costs in the same model. Bars are 95 % "
    "intervals of speeds and standard deviations over seeds; large marks on the stepped line are variants that no "
    "other beats in one without losing in the other.",
    draw=draw,
)
