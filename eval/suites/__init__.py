"""Suites: named lists of cells to measure, in groups, and what to say of their rows.

A suite is one file of this folder or of `eval/replications/`, which holds a `Suite`, and is found by being there.
"""

import dataclasses
import inspect
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eval import SUITES, modules, query
from eval.bench import Group
from eval.query import Measured, measured
from eval.rows import Comparison, Row
from eval.statistics import Contrast
from eval.suites.series import series_named
from zoo.config import UserError, require

# JSON-ready; those of equal keys become lines of one table.
Figure = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What the user asks a suite for; None means the suite's own choice.

    Attributes:
        variants: Names of variants, or of series such as `swa(window_size=32)`; the first is the baseline.
        levels: Of op, layer, model.
        modes: Of forward, forward_backward, step, prefill, decode.
        lengths: L, tokens.
        batch_sizes: B, rows of a batch.
        dtypes: Names.
        compiled: Of True, False.
        executions: Of latency, throughput.
        models: Names of YAMLs in configs/model.
    """

    variants: tuple[str, ...] | None = None
    levels: tuple[str, ...] | None = None
    modes: tuple[str, ...] | None = None
    lengths: tuple[int, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    compiled: tuple[bool, ...] | None = None
    executions: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None


AXES = tuple(field.name for field in dataclasses.fields(SuiteRequest))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """A named set of measurements.

    Attributes:
        name: As in `suite=NAME`.
        plan: Makes the groups. Its keyword parameters are the axes that the user may choose (variants as `Series`),
            their defaults the suite's own choice.
        summary: From the suite's rows, and nothing else, to a few JSON-ready figures.
        conclude: Keeps something beyond the rows once all are there, such as a calibration, and says on this machine
            alone what and where, JSON-ready; None for nothing.
    """

    name: str
    plan: Callable[..., Sequence[Group]]
    summary: Callable[[Sequence[Row]], list[Figure]]
    conclude: Callable[[Sequence[Row]], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        for name, axis in self._axes.items():
            fits = name in AXES and axis.default is not axis.empty
            require(fits, f"suite {self.name}", "plan by axes with a default", name, allowed=AXES)

    @property
    def _axes(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.plan).parameters

    def groups(self, request: SuiteRequest) -> Sequence[Group]:
        """What is measured.

        Raises:
            UserError: If the request sets what the suite sets itself, or what its plan refuses.
        """
        chosen: Figure = {name: value for name in AXES if (value := getattr(request, name)) is not None}
        for name in chosen:
            if name not in self._axes:
                choices = f"it leaves {', '.join(self._axes) or 'nothing'} open"
                raise UserError(f"{name} must not be given to suite={self.name}, which sets it itself; {choices}")
        modes = self._axes["modes"].default if "modes" in chosen else None
        fits = modes is None or set(chosen["modes"]) <= set(modes)
        require(fits, "modes", "suit this suite", chosen.get("modes"), allowed=modes or ())
        if "variants" in chosen:
            chosen["variants"] = list(map(series_named, chosen["variants"]))
        return self.plan(**chosen)


def suites() -> Mapping[str, Suite]:
    """What `suite=` names: every `Suite` of every file."""
    found = [value for module in modules(SUITES) for value in vars(module).values() if isinstance(value, Suite)]
    return {suite.name: suite for suite in found}


def fewest_rounds(length: int, limits: Mapping[int, int]) -> int | None:
    """Most rounds where calls are slow: the fewest that any limit sets whose length is reached; None for no limit."""
    return min((rounds for least, rounds in limits.items() if length >= least), default=None)


def by_group(rows: Iterable[Row]) -> dict[str, dict[str, Measured]]:
    """Group -> variant -> timed row; A/A controls left out."""
    groups = query.grouped(measured(rows, timed=True), lambda each: each.cell.group)
    return {group: {each.cell.variant: each for each in found} for group, found in groups.items()}


def statuses(rows: Iterable[Row]) -> Figure:
    """How many rows there are of each status."""
    return {"figure": "rows by status", **dict(sorted(query.num_statuses(rows).items()))}


def with_interval(found: Contrast, name: str = "ratio") -> Figure:
    """A figure of that name as summaries print it."""
    return {name: found.value, "low": found.low, "high": found.high}


def over_baseline(rows: Sequence[Row]) -> list[Figure]:
    """How many rows there are of each status, and each variant's time over the baseline's, group by group."""
    figures = [statuses(rows)]
    for each in measured(rows, timed=True):
        if (found := each.row.comparison) is not None:
            ratio = {"ratio": found.ratio, "low": found.ratio_low, "high": found.ratio_high}
            name = f"{each.cell.variant} over {found.baseline}"
            figures.append({"figure": name, "group": each.cell.group, **ratio})
    return figures


def over_groups(rows: Sequence[Row]) -> list[Figure]:
    """The same over all groups together: median and range of the ratios, those of the A/A controls too."""
    ratios: dict[str, list[Comparison]] = {}
    for row in rows:
        if row.comparison is not None and row.cell is not None:
            ratios.setdefault(f"{row.cell.variant} over {row.comparison.baseline}", []).append(row.comparison)
    figures = [statuses(rows)]
    for name, found in ratios.items():
        values = [each.ratio for each in found]
        spread = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        faster = sum(each.ratio_high is not None and each.ratio_high < 1 for each in found)
        slower = sum(each.ratio_low is not None and each.ratio_low > 1 for each in found)
        counts = {"groups": len(values), "surely_faster": faster, "surely_slower": slower}
        figures.append({"figure": name, **spread, **counts})
    return figures
