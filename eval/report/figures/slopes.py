"""Scaling exponents of every series, with their intervals."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.query import by_series
from eval.report.figures.attnbench_rows import MODE_TITLES, MODES, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.style import INK, MARKERS, PALETTE
from eval.rows import Row
from eval.statistics.intervals import Contrast
from eval.statistics.scaling import scaling_exponent

MIN_LENGTHS = 3


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """A point for each series and mode; series with fewer than three lengths say so."""
    found = {mode: exponents(rows, mode) for mode in MODES}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    if not any(exponent is not None for each in found.values() for exponent, _ in each.values()):
        return Absent(reason=missing(f"a series at {MIN_LENGTHS} lengths"))
    figure = Figure(figsize=(9, 1.2 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    for index, (mode, series) in enumerate(found.items()):
        offset = 0.16 * (2 * index - 1)
        label: str | None = MODE_TITLES[mode]
        for y, name in enumerate(names):
            exponent, lengths = series.get(name, (None, ()))
            if exponent is None:
                if name in series:
                    axes.text(0.02, y + offset, f"{len(lengths)} lengths only", va="center", fontsize=6.5)
                continue
            colour = PALETTE[index]
            if exponent.low is not None and exponent.high is not None:
                axes.plot([exponent.low, exponent.high], [y + offset] * 2, color=colour, linewidth=2, alpha=0.6)
            axes.plot([exponent.value], [y + offset], MARKERS[index], color=colour, label=label, linestyle="none")
            label = None
    for power, text in ((1, "linear"), (2, "quadratic")):
        axes.axvline(power, color=INK, linewidth=1, linestyle="--")
        axes.text(power, -0.75, text, ha="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -1.1)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("power of the length with which time grows")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def exponents(rows: Sequence[Row], mode: str) -> dict[str, tuple[Contrast | None, tuple[int, ...]]]:
    """Of each series of a mode: its exponent (None below three lengths) and the lengths it was timed at."""
    found = {}
    for name, series in by_series(main_rows(rows, mode)).items():
        samples = {each.cell.length: each.samples for each in series if each.samples}
        enough = len(samples) >= MIN_LENGTHS
        exponent = scaling_exponent(list(samples), list(samples.values())) if enough else None
        found[name] = (exponent, tuple(samples))
    return found


KIND = FigureKind(
    name="slopes",
    title="How time grows with the length",
    caption="Slope of log time over log length with its 95 % interval, over all measured lengths. Short lengths are "
    "bound by dispatch, which flattens every slope. Published: 1.73 for MHA; the published table itself gives 0.65.",
    draw=draw,
)
