"""What the project claims of its own parts, each a ratio of two cells beside its target.

All in float32 or the device's own dtype, one sequence, 8 heads of 64. What a whole step makes beside other libraries,
and what MLX's products make with another BLAS, is measured by `make peers`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eval.bench import Group
from eval.query import Measured
from eval.rows import Row
from eval.rows.cell import Mode
from eval.suites.findings import Ratio, by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.series import series
from eval.suites.suite import Suite, SuiteRequest, require_free
from zoo.runtime.backend import default_dtype, dtype_name

NAME = "targets"
BIDIRECTIONAL = "linear(bidirectional)"
_MEMORY_ROUNDS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A ratio that should be on one side of a bound.

    Attributes:
        above: Group and series of the numerator.
        below: Those of the denominator.
        bound: The target.
        at_least: Whether the ratio should be at or above it, else at or below.
        memory: Whether peak bytes are compared, and not seconds of the same rounds.
    """

    above: tuple[str, str]
    below: tuple[str, str]
    bound: float
    at_least: bool
    memory: bool = False


TARGETS: Mapping[str, Target] = {
    "time of a window by a mask over blocks": Target(
        above=("window", "swa_masked"), below=("window", "swa"), bound=4.0, at_least=True
    ),
    "peak of a window at 2048 tokens over 1024": Target(
        above=("memory L=2048", "swa"), below=("memory L=1024", "swa"), bound=2.3, at_least=False, memory=True
    ),
    "peak of tiles over the written-out scores": Target(
        above=("memory L=4096", "mha_tiled"),
        below=("memory L=4096", "mha_manual"),
        bound=0.15,
        at_least=False,
        memory=True,
    ),
    "time of causal linear attention over bidirectional": Target(
        above=("linear", "linear"), below=("linear", BIDIRECTIONAL), bound=1.3, at_least=False
    ),
}


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each target, and one for each length at which memory is measured.

    Raises:
        UserError: If the request sets anything.
    """
    require_free(request, NAME, ())
    (causal,) = _group("linear", "forward", 512, ["linear"]).cells
    other = causal.model_copy(update={"variant": BIDIRECTIONAL, "causal": False, "role": "candidate"})
    return [
        _group("window", "forward_backward", 1024, ["swa", "swa_masked"]),
        *(_group(f"memory L={length}", "forward_backward", length, ["swa"], memory=True) for length in (1024, 2048)),
        _group("memory L=4096", "forward_backward", 4096, ["mha_manual", "mha_tiled"], memory=True),
        Group(cells=(causal, other)),
    ]


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each target's ratio, and whether it is met; of those whose cells were measured."""
    named = by_group(timed_rows(rows, NAME))
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    for name, target in TARGETS.items():
        above, below = (named.get(group, {}).get(series) for group, series in (target.above, target.below))
        if above is None or below is None:
            continue
        found = _peaks(above, below) if target.memory else ratio_of(above, below)
        if found is not None:
            met = found["ratio"] >= target.bound if target.at_least else found["ratio"] <= target.bound
            bound = {"target": target.bound, "at_least": target.at_least, "met": met}
            figures.append({"figure": name, **found, **bound})
    return figures


def _peaks(above: Measured, below: Measured) -> Ratio | None:
    peaks = above.peak_bytes, below.peak_bytes
    return Ratio(ratio=peaks[0] / peaks[1], low=None, high=None) if peaks[0] and peaks[1] else None


def _group(name: str, mode: Mode, length: int, variants: Sequence[str], *, memory: bool = False) -> Group:
    setting = {
        "suite": NAME,
        "group": name,
        "builder": "op",
        "level": "op",
        "mode": mode,
        "length": length,
        "dtype": dtype_name(default_dtype()),
    }
    cells = cells_of([series(each) for each in variants], setting)
    return Group(cells=cells, memory=memory, control=not memory, max_rounds=_MEMORY_ROUNDS if memory else None)


SUITE = Suite(
    name=NAME,
    purpose="What the project claims of its own parts, each a ratio beside its target.",
    groups=groups,
    summary=summary,
)
