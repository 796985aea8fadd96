"""From micro to end-to-end: op, layer and whole model, against what Amdahl's law makes of the op's speed-up.

If the baseline's attention ops take a share s of a model's time, an op that takes r of the baseline's time leaves
1 - s + s·r of the model's. The share is the op's median times the number of layers, over the model's median: the ops
are those of the model's own shape, so what else the layers and the rest of the model do is in 1 - s. A training step
is held against the op's forward and backward pass.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import Measured
from eval.rows import Row
from eval.suites.findings import by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.model_shape import ModelShape, model_shape, num_layers_of
from eval.suites.series import Series, chosen_series, published_series
from eval.suites.suite import Suite, SuiteRequest, require_free

NAME = "transfer"
# Model -> length: gpt_tiny holds 512 tokens.
MODELS: Mapping[str, int] = {"llama_tiny": 512, "gpt_tiny": 256}
VARIANTS = ("mha_manual", "mha", "mha_tiled", "swa", "swa_masked", "blocksparse", "linear")
MODES = {
    "op": ("forward", "forward_backward"),
    "layer": ("forward", "forward_backward"),
    "model": ("forward", "forward_backward", "step"),
}
# What of the op a model's mode runs in each layer.
_OP_MODE = {"forward": "forward", "forward_backward": "forward_backward", "step": "forward_backward"}
# A training step of the dense variants takes a fifth of a second.
_MODEL_ROUNDS = 10


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each level, mode and model; variants, models and lengths are the user's choice.

    Raises:
        UserError: If the request sets anything else.
    """
    require_free(request, NAME, ("variants", "models", "lengths"))
    chosen = chosen_series(request.variants, VARIANTS, by_default=published_series)
    return [
        _group(chosen, level, mode, model_shape(name), length)
        for name in request.models or MODELS
        for length in request.lengths or (MODELS.get(name, min(MODELS.values())),)
        for level, modes in MODES.items()
        for mode in modes
    ]


def _group(chosen: Sequence[Series], level: str, mode: str, model: ModelShape, length: int) -> Group:
    setting = {
        **model.fields,
        "suite": NAME,
        "group": f"{level} {mode} {model.name} L={length}",
        "builder": level,
        "level": level,
        "mode": mode,
        "length": length,
        "detail": model.layer_detail if level == "layer" else "",
    }
    return Group(cells=cells_of(chosen, setting), max_rounds=_MODEL_ROUNDS if level == "model" else None)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each variant's model time over the baseline's: predicted from the op, and measured."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    groups_ = by_group(timed_rows(rows, NAME))
    for group, variants in groups_.items():
        cell = next(iter(variants.values())).cell
        ops = groups_.get(f"op {_OP_MODE.get(cell.mode)} {cell.model} L={cell.length}", {})
        if cell.level == "model" and ops:
            figures += _predictions(group, variants, ops)
    errors = [abs(each["predicted"] / each["ratio"] - 1) for each in figures if "predicted" in each]
    if errors:
        figures.insert(1, {"figure": "median relative error of the prediction", "value": statistics.median(errors)})
    return figures


def _predictions(group: str, variants: Mapping[str, Measured], ops: Mapping[str, Measured]) -> list[dict[str, Any]]:
    base = next((each for each in variants.values() if each.cell.role == "baseline"), None)
    base_op = None if base is None else ops.get(base.cell.variant)
    num_layers = None if base is None else num_layers_of(base.cell.model)
    if base is None or base_op is None or num_layers is None:
        return []
    share = base_op.median * num_layers / base.median
    figures = []
    for name, each in variants.items():
        op = ops.get(name)
        ratio = None if each is base else ratio_of(each, base)
        op_ratio = None if op is None else ratio_of(op, base_op)
        if ratio is None or op_ratio is None:
            continue
        figure = {"figure": "Amdahl's prediction of the model's ratio", "group": group, "variant": name}
        predicted = 1 - share + share * op_ratio["ratio"]
        figures.append({**figure, "share": share, "op_ratio": op_ratio["ratio"], "predicted": predicted, **ratio})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="What an op's speed-up becomes in a layer and in a whole model, against Amdahl's law.",
    groups=groups,
    summary=summary,
)
