"""Block-sparse attention: its speed-up over dense attention, and where it begins."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.query import Measured, by_series
from eval.report.figures.attnbench_rows import FUSED, UNFUSED, main_rows, missing
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.lines import draw_panel, has_points, ratio_lines
from eval.report.figures.style import BAND_ALPHA, PALETTE, status_key
from eval.report.wording import open_interval
from eval.rows import Row
from eval.statistics.scaling import Crossover, crossover

# The published setting.
CROSSING = "blocksparse(block_size=32, num_global_tokens=1)"
_RIVALS = {UNFUSED: "unfused MHA", FUSED: "fused MHA"}


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Speed-up over unfused and over fused attention, forward."""
    found = main_rows(rows, "forward")
    sparse = [each for each in found if (each.mechanism or "").startswith("block_sparse")]
    if not sparse:
        return Absent(reason=missing("block-sparse attention"))
    rivals = {rival: [each for each in found if each.cell.variant == rival] for rival in _RIVALS}
    drawn = {
        rival: lines
        for rival, against in rivals.items()
        if has_points(lines := ratio_lines([*sparse, *against], rival, inverted=True))
    }
    if not drawn:
        return Absent(reason=missing("block-sparse attention timed beside dense attention"))
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False, sharey=True)[0]
    marked: list[str] = []
    for (rival, lines), axes in zip(drawn.items(), panels, strict=True):
        title = f"speed-up over {_RIVALS[rival]}"
        marked += draw_panel(axes, lines, title=title, label="speed-up (×)", at_one=True)
        _mark_crossover(axes, crossover_of(sparse, rivals[rival]))
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    status_key(figure, marked)
    return figure


def crossover_of(sparse: Sequence[Measured], against: Sequence[Measured]) -> Crossover | None:
    """Where the published setting begins to be the faster one; None where too few lengths were timed together."""
    rivals = {each.rounds: each for each in against}
    candidates = by_series(sparse).get(CROSSING, [])
    pairs = [(each, rivals[each.rounds]) for each in candidates if each.rounds in rivals]
    pairs = [(a, b) for a, b in pairs if a.samples and len(a.samples) == len(b.samples)]
    by_length = {a.cell.length: (a, b) for a, b in pairs}
    if len(by_length) < 2:
        return None
    chosen = list(by_length.values())
    return crossover(list(by_length), [a.samples for a, _ in chosen], [b.samples for _, b in chosen])


def _mark_crossover(axes: Axes, found: Crossover | None) -> None:
    if found is None:
        text = "crossover: too few lengths"
    elif found.length is None:
        text = f"crossover: none (block-sparse is faster at {found.faster_at})"
    else:
        ends = open_interval(found.low, found.high, ".0f")
        ends = f" {ends}" if ends else ""
        text = f"crossover at {found.length:.0f}{ends}: faster at {found.faster_at}"
        axes.axvline(found.length, color=PALETTE[3], linewidth=1.2)
        if found.low is not None and found.high is not None:
            axes.axvspan(found.low, found.high, color=PALETTE[3], alpha=BAND_ALPHA, linewidth=0)
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=8)


KIND = FigureKind(
    name="blocksparse",
    title="Block-sparse speed-up and crossover",
    caption="How many times as fast as dense attention, at the length and in the rounds of the same group. Dense and "
    f"block-sparse attention are two different functions. The crossover is that of {CROSSING}, with its interval. "
    "Published: 1.9× at 1024, crossover near 400 to 600, against unfused attention only.",
    draw=draw,
)
