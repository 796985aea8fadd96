"""The user's own grid: any variants at any levels, modes, lengths, batch sizes and dtypes, against the first variant.

Every variant asked for leaves a row at every point of the grid: measured, or with the reason why not. Ops and layers
have the modes forward and forward_backward; step, prefill and decode belong to whole models.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

from eval.bench import Group
from eval.rows import Row
from eval.suites.findings import by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.model_shape import model_shape
from eval.suites.series import chosen_series
from eval.suites.suite import Suite, SuiteRequest
from zoo.attention.catalog import attention_names
from zoo.config import require

NAME = "grid"
LEVELS = ("op", "layer", "model")
_MODEL_MODES = ("forward", "forward_backward", "step", "prefill", "decode")
# Level -> its modes -> those measured unless the user chooses.
MODES = {"op": _MODEL_MODES[:2], "layer": _MODEL_MODES[:2], "model": _MODEL_MODES}
_DEFAULT_MODES = {**MODES, "model": _MODEL_MODES[2:]}
_LENGTHS, _MODELS = (256, 1024), ("llama_tiny",)
_EXECUTIONS: tuple[Literal["latency", "throughput"], ...] = ("latency", "throughput")


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each point of the grid, with all variants in it.

    Raises:
        UserError: If a level, mode or execution is unknown, or the modes suit none of the levels.
    """
    levels = request.levels or LEVELS
    require(set(levels) <= set(LEVELS), "levels", "be known", levels, allowed=LEVELS)
    executions = request.executions or _EXECUTIONS[:1]
    require(set(executions) <= set(_EXECUTIONS), "executions", "be known", executions, allowed=_EXECUTIONS)
    if request.modes is not None:
        suitable = {mode for level in levels for mode in MODES[level]}
        fits = set(request.modes) <= suitable
        require(fits, "modes", f"suit a level of {list(levels)}", request.modes, allowed=sorted(suitable))
    chosen = chosen_series(request.variants, attention_names())
    points = itertools.product(
        _subjects(request, levels),
        request.batch_sizes or (1,),
        request.lengths or _LENGTHS,
        request.dtypes or ("float32",),
        request.compiled or (True,),
        executions,
    )
    found = []
    for subject, batch_size, length, dtype, compiled, execution in points:
        setting = {
            **subject,
            "batch_size": batch_size,
            "length": length,
            "dtype": dtype,
            "compiled": compiled,
            "execution": execution,
        }
        cells = cells_of(chosen, {"suite": NAME, "group": _name(setting), **setting})
        # Memory does not depend on when a call is evaluated; only many results kept at once would.
        found.append(Group(cells=cells, memory=execution == executions[0]))
    return found


def _subjects(request: SuiteRequest, levels: Sequence[str]) -> list[dict[str, Any]]:
    """Builder, level, mode and model of every group, at one batch size, length, dtype and way to run."""
    subjects: list[dict[str, Any]] = []
    for level in levels:
        modes = _DEFAULT_MODES[level] if request.modes is None else request.modes
        for mode in (mode for mode in modes if mode in MODES[level]):
            subject = {"builder": level, "level": level, "mode": mode}
            if level == "model":
                subjects += [{**subject, **model_shape(name).fields} for name in request.models or _MODELS]
            else:
                subjects.append(subject)
    return subjects


def _name(setting: dict[str, Any]) -> str:
    words = [setting["level"], setting["mode"], setting.get("model") or "", f"B={setting['batch_size']}"]
    words += [f"L={setting['length']}", setting["dtype"], "compiled" if setting["compiled"] else "eager"]
    return " ".join(word for word in [*words, setting["execution"]] if word)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each variant's time over the first one's."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    for group, variants in by_group(timed_rows(rows, NAME)).items():
        baseline = next((each for each in variants.values() if each.cell.role == "baseline"), None)
        for name, each in variants.items():
            ratio = None if baseline is None or each is baseline else ratio_of(each, baseline)
            if baseline is not None and ratio is not None:
                figures.append({"figure": f"{name} over {baseline.cell.variant}", "group": group, **ratio})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="Your own grid of variants, levels, modes, lengths, batch sizes and dtypes.",
    groups=groups,
    summary=summary,
)
