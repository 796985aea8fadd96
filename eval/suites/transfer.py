"""From micro to end-to-end: op, layer and whole model, against what Amdahl's law makes of the op's speed-up.

The share of the baseline's time that its attention ops take is the op's median times the number of layers, over the
model's median: the ops are those of the model's own shape, so what else the layers and the rest of the model do is in
the remainder. A training step is held against the op's forward and backward pass.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import Measured
from eval.rows import Row
from eval.statistics.ratios import amdahl
from eval.suites.cells import cells_of, layer_detail, model_fields, num_layers_of
from eval.suites.series import chosen_series, published_series
from eval.suites.suite import Figure, Suite, by_group, ratio_of, statuses

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
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    models: Sequence[str] = tuple(MODELS),
    lengths: Sequence[int] | None = None,
) -> list[Group]:
    """One group for each level, mode and model."""
    chosen = chosen_series(variants, VARIANTS, by_default=published_series)
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
                detail=layer_detail(model) if level == "layer" else "",
            ),
            max_rounds=_MODEL_ROUNDS if level == "model" else None,
        )
        for model in models
        for length in lengths or (MODELS.get(model, min(MODELS.values())),)
        for level, modes in _MODES.items()
        for mode in modes
    ]


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Each variant's model time over the baseline's: predicted from the op, and measured."""
    groups, predictions = by_group(rows), []
    for group, variants in groups.items():
        cell = next(iter(variants.values())).cell
        ops = groups.get(f"op {OP_MODES.get(cell.mode)} {cell.model} L={cell.length}", {})
        if cell.level == "model" and ops:
            predictions += _predictions(group, variants, ops)
    errors = [abs(each["predicted"] / each["ratio"] - 1) for each in predictions]
    median = (
        [{"figure": "median relative error of the prediction", "value": statistics.median(errors)}] if errors else []
    )
    return [statuses(rows), *median, *predictions]


def _predictions(group: str, variants: Mapping[str, Measured], ops: Mapping[str, Measured]) -> list[Figure]:
    base = next((each for each in variants.values() if each.cell.role == "baseline"), None)
    base_op = None if base is None else ops.get(base.cell.variant)
    num_layers = None if base is None else num_layers_of(base.cell.model)
    if base is None or base_op is None or num_layers is None:
        return []
    share = base_op.median * num_layers / base.median
    figures = []
    for name, each in variants.items():
        ratio, op_ratio = None if each is base else ratio_of(each, base), ratio_of(ops.get(name), base_op)
        predicted = None if op_ratio is None else amdahl(share, op_ratio["ratio"])
        if ratio is not None and op_ratio is not None and predicted is not None:
            figure = {"figure": "Amdahl's prediction of the model's ratio", "group": group, "variant": name}
            figures.append({**figure, "share": share, "op_ratio": op_ratio["ratio"], "predicted": predicted, **ratio})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="What an op's speed-up becomes in a layer and in a whole model, against Amdahl's law.",
    plan=plan,
    summary=summary,
)
