"""From micro to end-to-end: op, layer and whole model, against what Amdahl's law makes of the op's speed-up.

The share of the baseline's time that its attention ops take is the op's median times the number of layers, over the
model's median: the ops are those of the model's own shape, so what else the layers and the rest of the model do is in
the remainder. A training step is held against the op's forward and backward pass.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eval.bench import Group
from eval.query import ratio_of
from eval.rows import Row
from eval.statistics import Contrast, amdahl
from eval.suites import Figure, Suite, by_group, statuses, with_interval
from eval.suites.series import Series, cells_of, model_fields, published_series
from zoo.models.catalog import model_names, shipped_model

NAME = "transfer"
# Model -> length: gpt_tiny holds 512 tokens.
MODELS: Mapping[str, int] = {"llama_tiny": 512, "gpt_tiny": 256}
VARIANTS = ("mha_manual", "mha", "mha_tiled", "swa", "swa_masked", "blocksparse", "linear")
# What of the op a model's mode runs in each layer.
OP_MODES = {"forward": "forward", "forward_backward": "forward_backward", "step": "forward_backward"}
_MODES = {"op": ("forward", "forward_backward"), "layer": ("forward", "forward_backward"), "model": tuple(OP_MODES)}
# A training step of the dense variants takes a fifth of a second.
_MODEL_ROUNDS = 10


def plan(
    *, variants: Sequence[Series] | None = None, models: Sequence[str] = tuple(MODELS), lengths: Sequence[int] = ()
) -> list[Group]:
    """One group for each level, mode and model."""
    chosen = variants or [published_series(name) for name in VARIANTS]
    return [
        Group(
            cells=cells_of(
                chosen,
                **model_fields(model),
                suite=NAME,
                group=f"{level} {mode} {model} L={length}",
                level=level,
                mode=mode,
                length=length,
                detail=f"positions={shipped_model(model)['positions']}" if level == "layer" else "",
            ),
            max_rounds=_MODEL_ROUNDS if level == "model" else None,
        )
        for model in models
        for length in lengths or (MODELS.get(model, min(MODELS.values())),)
        for level, modes in _MODES.items()
        for mode in modes
    ]


class Prediction(NamedTuple):
    """One variant in one model and mode; ratios are its time over the baseline's.

    Attributes:
        group: Of the model's rows, as are `variant`, `model` and `mode`.
        share: Of the baseline's time, that of its attention ops.
        op_ratio: Of the op, timed alone.
        predicted: Of the model, by Amdahl's law.
        measured: Of the model.
    """

    group: str
    variant: str
    model: str
    mode: str
    share: float
    op_ratio: float
    predicted: float
    measured: Contrast


def predictions(rows: Iterable[Row]) -> list[Prediction]:
    """Every variant whose op and model were both timed beside the baseline, at one shape."""
    groups, found = by_group(rows), []
    for group, variants in groups.items():
        base = next((each for each in variants.values() if each.cell.role == "baseline"), None)
        if base is None or base.cell.level != "model" or base.cell.model not in model_names():
            continue
        model, mode = base.cell.model, base.cell.mode
        ops = groups.get(f"op {OP_MODES.get(mode)} {model} L={base.cell.length}", {})
        base_op = ops.get(base.cell.variant)
        if base_op is None:
            continue
        share = base_op.median * shipped_model(model)["num_layers"] / base.median
        for name, each in variants.items():
            measured = ratio_of(each, base) if each is not base else None
            op_ratio = ratio_of(ops[name], base_op) if name in ops else None
            predicted = None if op_ratio is None else amdahl(share, op_ratio.value)
            if measured is not None and op_ratio is not None and predicted is not None:
                found.append(Prediction(group, name, model, mode, share, op_ratio.value, predicted, measured))
    return found


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Each variant's model time over the baseline's: predicted from the op, and measured."""
    found = predictions(rows)
    figures = [statuses(rows)]
    if found:
        error = statistics.median(abs(each.predicted / each.measured.value - 1) for each in found)
        figures.append({"figure": "median relative error of the prediction", "value": error})
    for each in found:
        told = {name: getattr(each, name) for name in ("group", "variant", "share", "op_ratio", "predicted")}
        figures.append({"figure": "Amdahl's prediction of the model's ratio", **told, **with_interval(each.measured)})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary)
