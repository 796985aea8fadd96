"""Linear attention: without a mask, causal chunk by chunk, causal by running sums; and what the mask costs."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.query import Measured
from eval.report.figures.attnbench_rows import FUSED, UNFUSED, causal_rows, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_panel, has_points, ratio_lines, time_lines
from eval.report.figures.style import status_key
from eval.rows import Row

BIDIRECTIONAL = "linear, bidirectional"
_CAUSAL_NAMES = {"linear": "linear, causal (chunked)", "linear_cumsum": "linear, causal (cumsum)"}


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Times beside dense attention's, and the causal ones over the bidirectional one."""
    linear = [_named(each) for each in causal_rows(rows, "forward")]
    if not linear:
        return Absent(reason=missing("linear attention, causal and bidirectional"))
    dense = [each for each in main_rows(rows, "forward") if each.cell.variant in (UNFUSED, FUSED)]
    lines = time_lines([*linear, *dense], references=(UNFUSED,))
    ratios = ratio_lines(linear, BIDIRECTIONAL)
    panels = [("time, forward", "ms", lines), ("causal over bidirectional", "time over bidirectional", ratios)]
    panels = [panel for panel in panels if has_points(panel[2])]
    if not panels:
        return Absent(reason=missing("linear attention with times"))
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    marked: list[str] = []
    for axes, (title, label, own) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        marked += draw_panel(axes, own, title=title, label=label, at_one=own is ratios)
        axes.legend(loc="upper left")
    status_key(figure, marked)
    return figure


def _named(each: Measured) -> Measured:
    """Both masks share a variant's name; here they are different series."""
    name = _CAUSAL_NAMES.get(each.cell.variant, each.cell.variant) if each.cell.causal else BIDIRECTIONAL
    return Measured(row=each.row, cell=each.cell.model_copy(update={"variant": name}))


KIND = FigureKind(
    name="linear",
    title="Linear attention and the cost of causality",
    caption="Left: linear attention without a mask, and causal by two implementations, beside dense attention. Right: "
    "what causality costs, paired round by round. Published: 2.96 times at length 512, by running sums.",
    draw=draw,
)
