"""Latency of one attention layer over the length, a panel for each mechanism."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.query import Measured, any_timed
from eval.report.figures.attnbench_rows import FUSED, MODE_TITLES, MODES, UNFUSED, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind, crowded
from eval.report.figures.lines import draw_legend, draw_panel, own_looks, time_lines
from eval.report.figures.style import status_key
from eval.rows import Row

_TITLES = {"sliding_window": "sliding windows", "block_sparse": "block-sparse", "block_sparse_legacy": "block-sparse"}


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Milliseconds of every series, forward and with gradients."""
    by_mode = {mode: found for mode in MODES if any_timed(found := main_rows(rows, mode))}
    if not by_mode:
        return Absent(reason=missing("any timed layer"))
    families = list(dict.fromkeys(_family(each) for found in by_mode.values() for each in found))
    if (absent := crowded(len(families) * len(by_mode))) is not None:
        return absent
    figure = Figure(figsize=(10.5, 2.9 * len(families)), layout="constrained")
    panels = figure.subplots(len(families), len(by_mode), squeeze=False)
    marked: list[str] = []
    for family, line_of_panels in zip(families, panels, strict=True):
        by_panel = {
            mode: time_lines(
                [each for each in found if _family(each) == family or each.cell.variant in (UNFUSED, FUSED)],
                references=(UNFUSED,),
            )
            for mode, found in by_mode.items()
        }
        every = [line for lines in by_panel.values() for line in lines]
        styles = own_looks(every)
        for (mode, lines), axes in zip(by_panel.items(), line_of_panels, strict=True):
            marked += draw_panel(axes, lines, title=f"{family}, {MODE_TITLES[mode]}", label="ms", styles=styles)
        draw_legend(line_of_panels[-1], every, styles)
    status_key(figure, marked)
    return figure


def _family(each: Measured) -> str:
    name = each.mechanism or each.cell.variant
    return _TITLES.get(name, name.replace("_", " "))


KIND = FigureKind(
    name="latency",
    title="Latency over length",
    caption="Median milliseconds of one attention layer with its 95 % interval, one panel a mechanism; unfused MHA "
    "(dashed) and fused MHA are in all of them. Marks above a panel are lengths without a time, and why.",
    draw=draw,
)
