"""The user's own grid: any variants at any levels, modes, lengths, batch sizes and dtypes, against the first variant.

Every variant asked for leaves a row at every point of the grid: measured, or with the reason why not. Ops and layers
have the modes forward and forward_backward; step, prefill and decode belong to whole models.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.suites.cells import cells_of, model_fields
from eval.suites.series import chosen_series
from eval.suites.suite import Suite, over_baseline
from zoo.attention.catalog import attention_names
from zoo.config import require

NAME = "grid"
_MODEL_MODES = ("forward", "forward_backward", "step", "prefill", "decode")
# Level -> its modes -> those measured unless the user chooses.
MODES = {"op": _MODEL_MODES[:2], "layer": _MODEL_MODES[:2], "model": _MODEL_MODES}
_DEFAULT_MODES = {**MODES, "model": _MODEL_MODES[2:]}


def plan(  # noqa: PLR0913 - every axis is the user's
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    levels: Sequence[str] = tuple(MODES),
    modes: Sequence[str] | None = None,
    lengths: Sequence[int] = (256, 1024),
    batch_sizes: Sequence[int] = (1,),
    dtypes: Sequence[str] = ("float32",),
    compiled: Sequence[bool] = (True,),
    executions: Sequence[str] = ("latency",),
    models: Sequence[str] = ("llama_tiny",),
) -> list[Group]:
    """One group for each point of the grid, with all variants in it.

    Raises:
        UserError: If the modes suit none of the levels, or a model is unknown.
    """
    suitable = sorted({mode for level in levels for mode in MODES[level]})
    fits = modes is None or set(modes) <= set(suitable)
    require(fits, "modes", f"suit a level of {list(levels)}", modes, allowed=suitable)
    chosen = chosen_series(variants, attention_names())
    subjects: list[dict[str, Any]] = [
        {"level": level, "mode": mode, **model}
        for level in levels
        for mode in (_DEFAULT_MODES[level] if modes is None else modes)
        if mode in MODES[level]
        for model in (map(model_fields, models) if level == "model" else [{}])
    ]
    names = ("batch_size", "length", "dtype", "compiled", "execution")
    found = []
    for subject, *values in itertools.product(subjects, batch_sizes, lengths, dtypes, compiled, executions):
        setting = {**subject, **dict(zip(names, values, strict=True))}
        cells = cells_of(chosen, suite=NAME, group=_name(setting), **setting)
        # Memory does not depend on when a call is evaluated; only many results kept at once would.
        found.append(Group(cells=cells, memory=setting["execution"] == executions[0]))
    return found


def _name(setting: Mapping[str, Any]) -> str:
    words = [setting["level"], setting["mode"], setting.get("model", ""), f"B={setting['batch_size']}"]
    words += [f"L={setting['length']}", setting["dtype"], "compiled" if setting["compiled"] else "eager"]
    return " ".join(word for word in [*words, setting["execution"]] if word)


SUITE = Suite(
    name=NAME,
    purpose="Your own grid of variants, levels, modes, lengths, batch sizes and dtypes.",
    plan=plan,
    summary=over_baseline,
)
