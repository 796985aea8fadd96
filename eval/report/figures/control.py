"""A/A control: the same thing timed twice in the same rounds, whose ratio should be 1."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.style import FINE, INK, WARNING, log_ticks
from eval.rows import Comparison, Row

TARGET_SHARE = 0.9


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Every control's interval, lowest ratio first, by suite."""
    found = controls(rows)
    if not found:
        return Absent(reason="no A/A control has an interval")
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(found, key=lambda each: each[1].ratio)
    inside = 0
    for x, (_, each) in enumerate(ordered):
        assert each.ratio_low is not None
        assert each.ratio_high is not None
        contains = each.ratio_low <= 1 <= each.ratio_high
        inside += contains
        colour = FINE if contains else WARNING
        axes.plot([x, x], [each.ratio_low, each.ratio_high], color=colour, linewidth=1.6, alpha=0.7)
        axes.plot([x], [each.ratio], marker="o" if contains else "X", color=colour, linestyle="none")
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    axes.set_title(f"{inside} of {len(ordered)} intervals contain 1 ({inside / len(ordered):.0%})")
    axes.set_xlabel("controls, lowest ratio first")
    axes.set_ylabel("time over itself")
    axes.set_xticks([])
    log_ticks(axes, "y")
    return figure


def controls(rows: Sequence[Row]) -> list[tuple[Row, Comparison]]:
    """Every A/A control that has an interval."""
    return [
        (row, row.comparison)
        for row in rows
        if row.cell is not None
        and row.cell.role == "control"
        and row.comparison is not None
        and row.comparison.ratio_low is not None
        and row.comparison.ratio_high is not None
    ]


KIND = FigureKind(
    name="control",
    title="A/A control",
    caption="The baseline of each group timed a second time, in the same rounds. At least nine intervals of ten should "
    "contain 1 (green); where they do not, the machine was busy and no other interval deserves trust.",
    draw=draw,
)
