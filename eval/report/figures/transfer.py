"""From the kernel to the model: what Amdahl's law predicts of a faster attention, and what was measured."""

import dataclasses
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from eval.query import Measured, measured, ratio_of
from eval.report.figures.kind import Absent, FigureKind
from eval.report.figures.style import INK, MARKERS, log_ticks, looks
from eval.rows import Row
from eval.statistics.ratios import amdahl
from eval.suites.cells import num_layers_of

SUITE = "transfer"
BASELINE = "mha_manual"
# The pass of the op that a mode of the model contains in every layer.
_OP_MODES: Mapping[str, str] = {
    "forward": "forward",
    "forward_backward": "forward_backward",
    "step": "forward_backward",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One variant in one model and mode; all ratios are speed-ups over the baseline.

    Attributes:
        variant: Its name.
        model: Of configs/model.
        mode: Of the model.
        length: L.
        share: Attention's share of the baseline model's time.
        predicted: Speed-up by Amdahl's law.
        measured: Speed-up found.
        low: Lower end of its interval.
        high: Upper end.
    """

    variant: str
    model: str
    mode: str
    length: int
    share: float
    predicted: float
    measured: float
    low: float | None
    high: float | None


def predictions(rows: Sequence[Row]) -> list[Prediction]:
    """Of every variant whose op and model were both timed beside the baseline, at one shape."""
    found = [each for each in measured(rows, suites=(SUITE,)) if each.samples]
    ops: dict[tuple[object, ...], Measured] = {
        (_place(each), each.cell.mode, each.cell.variant): each for each in found if each.cell.level == "op"
    }
    models = [each for each in found if each.cell.level == "model" and each.cell.mode in _OP_MODES]
    baselines = {each.rounds: each for each in models if each.cell.variant == BASELINE}
    predicted = []
    for each in models:
        base, place, mode = baselines.get(each.rounds), _place(each), _OP_MODES[each.cell.mode]
        op, base_op = ops.get((place, mode, each.cell.variant)), ops.get((place, mode, BASELINE))
        num_layers = num_layers_of(each.cell.model)
        if base is None or base is each or op is None or base_op is None or num_layers is None:
            continue
        assert each.cell.model is not None, "a model with layers has a name"
        op_ratio, found_ratio = ratio_of(op, base_op), ratio_of(base, each)
        if op_ratio is None or found_ratio is None:
            continue
        share = num_layers * _median(base_op) / _median(base)
        remaining = amdahl(share, op_ratio.ratio)
        if remaining is None:
            continue
        predicted.append(
            Prediction(
                variant=each.cell.variant,
                model=each.cell.model,
                mode=each.cell.mode,
                length=each.cell.length,
                share=share,
                predicted=1 / remaining,
                measured=found_ratio.ratio,
                low=found_ratio.low,
                high=found_ratio.high,
            )
        )
    return predicted


def draw(rows: Sequence[Row]) -> Figure | Absent:
    """Predicted against measured speed-up, a panel for each model."""
    found = predictions(rows)
    if not found:
        return Absent(reason=f"no variant has rows of its op and of a model beside {BASELINE} in suite {SUITE}")
    models = list(dict.fromkeys(each.model for each in found))
    modes = list(dict.fromkeys(each.mode for each in found))
    colours = dict(zip(dict.fromkeys(each.variant for each in found), (look.colour for look in looks()), strict=False))
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for model, axes in zip(models, panels, strict=True):
        own = [each for each in found if each.model == model]
        for each in own:
            colour, marker = colours[each.variant], MARKERS[modes.index(each.mode)]
            if each.low is not None and each.high is not None:
                axes.plot([each.predicted] * 2, [each.low, each.high], color=colour, linewidth=1.4, alpha=0.6)
            axes.plot([each.predicted], [each.measured], marker=marker, color=colour, linestyle="none")
        ends = [min(min(e.predicted, e.measured) for e in own), max(max(e.predicted, e.measured) for e in own)]
        axes.plot(ends, ends, "--", color=INK, linewidth=1)
        axes.set_title(model)
        axes.set_xlabel("speed-up by Amdahl's law (×)")
        axes.set_ylabel("measured (×)")
        for which in ("x", "y"):
            log_ticks(axes, which)
    last = panels[-1]
    for name, colour in colours.items():
        last.plot([], [], "o", color=colour, label=name)
    for mode in modes:
        last.plot([], [], MARKERS[modes.index(mode)], color=INK, label=mode.replace("_", " + "))
    last.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _place(each: Measured) -> tuple[object, ...]:
    cell = each.cell
    return cell.model, cell.batch_size, cell.length, cell.dtype, each.row.machine.commit


def _median(each: Measured) -> float:
    assert each.timing is not None, "only timed rows are asked for their times"
    return each.timing.median_seconds


KIND = FigureKind(
    name="transfer",
    title="From the kernel to the model",
    caption="Speed-ups over unfused MHA of whole models, against what Amdahl's law makes of the op's own speed-up and "
    "of attention's share of the model's time. Points below the line lost on the way.",
    draw=draw,
)
