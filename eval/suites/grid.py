"""The user's own grid: any variants at any levels, modes, lengths, batch sizes and dtypes, against the first variant.

Every variant asked for leaves a row at every point of the grid: measured, or with the reason why not. Ops and layers
have the modes forward and forward_backward; step, prefill and decode belong to whole models.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.suites import Suite, over_baseline
from eval.suites.series import Series, cells_of, model_fields, series_named
from zoo.attention.catalog import attention_names
from zoo.config import require

NAME = "grid"
_PASSES, _WHOLE = ("forward", "forward_backward"), ("step", "prefill", "decode")
# Level -> its modes; of a model, those measured unless the user chooses are of whole models only.
MODES = {"op": _PASSES, "layer": _PASSES, "model": (*_PASSES, *_WHOLE)}
_DEFAULT_MODES = {**MODES, "model": _WHOLE}


def plan(  # noqa: PLR0913 - every axis is the user's
    *,
    variants: Sequence[Series] | None = None,
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
    chosen = variants or [series_named(name) for name in attention_names()]
    points: list[dict[str, Any]] = [
        {"level": level, "mode": mode, **model}
        for level in levels
        for mode in (_DEFAULT_MODES[level] if modes is None else modes)
        if mode in MODES[level]
        for model in (map(model_fields, models) if level == "model" else [{}])
    ]
    found = []
    for point, B, L, dtype, compiles, execution in itertools.product(
        points, batch_sizes, lengths, dtypes, compiled, executions
    ):
        words = [point["level"], point["mode"], *([point["model"]] if "model" in point else [])]
        words += [f"B={B}", f"L={L}", dtype, "compiled" if compiles else "eager", execution]
        setting = {**point, "batch_size": B, "length": L, "dtype": dtype, "compiled": compiles}
        cells = cells_of(chosen, suite=NAME, group=" ".join(words), execution=execution, **setting)
        # Memory does not depend on when a call is evaluated; only many results kept at once would.
        found.append(Group(cells=cells, memory=execution == executions[0]))
    return found


SUITE = Suite(name=NAME, plan=plan, summary=over_baseline)
