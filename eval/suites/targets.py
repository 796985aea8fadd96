"""What the project claims of its own parts, each a ratio of two cells beside its target.

All in float32 or the device's own dtype, one sequence, 8 heads of 64. What a whole step makes beside other libraries,
and what MLX's products make with another BLAS, is measured by `make peers`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from eval.bench import Group
from eval.query import ratio_of
from eval.rows import Cell, Row
from eval.rows.cell import Mode
from eval.suites import Figure, Suite, by_group, statuses, with_interval
from eval.suites.series import cells_of, series_named
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
    at_least: bool = False
    memory: bool = False


TARGETS: Mapping[str, Target] = {
    "time of a window by a mask over blocks": Target(
        above=("window", "swa_masked"), below=("window", "swa"), bound=4.0, at_least=True
    ),
    "peak of a window at 2048 tokens over 1024": Target(
        above=("memory L=2048", "swa"), below=("memory L=1024", "swa"), bound=2.3, memory=True
    ),
    "peak of tiles over the written-out scores": Target(
        above=("memory L=4096", "mha_tiled"), below=("memory L=4096", "mha_manual"), bound=0.15, memory=True
    ),
    "time of causal linear attention over bidirectional": Target(
        above=("linear", "linear"), below=("linear", BIDIRECTIONAL), bound=1.3
    ),
}


def plan() -> list[Group]:
    """One group for each target, and one for each length at which memory is measured."""
    (causal,) = _cells("linear", "forward", 512, "linear")
    other = causal.model_copy(update={"variant": BIDIRECTIONAL, "causal": False, "role": "candidate"})
    weighed = [(1024, ("swa",)), (2048, ("swa",)), (4096, ("mha_manual", "mha_tiled"))]
    memory = [_cells(f"memory L={length}", "forward_backward", length, *names) for length, names in weighed]
    return [
        Group(cells=_cells("window", "forward_backward", 1024, "swa", "swa_masked")),
        *(Group(cells=cells, memory=True, control=False, max_rounds=_MEMORY_ROUNDS) for cells in memory),
        Group(cells=(causal, other)),
    ]


def _cells(group: str, mode: Mode, length: int, *variants: str) -> tuple[Cell, ...]:
    dtype = dtype_name(default_dtype())
    chosen = map(series_named, variants)
    return cells_of(chosen, suite=NAME, group=group, level="op", mode=mode, length=length, dtype=dtype)


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Each target's ratio, and whether it is met; of those whose cells were measured."""
    named, figures = by_group(rows), [statuses(rows)]
    for name, target in TARGETS.items():
        above, below = (named.get(group, {}).get(series) for group, series in (target.above, target.below))
        if above is None or below is None:
            continue
        found: Figure | None = None
        if target.memory and above.peak_bytes and below.peak_bytes:
            found = {"ratio": above.peak_bytes / below.peak_bytes, "low": None, "high": None}
        elif not target.memory and (ratio := ratio_of(above, below)) is not None:
            found = with_interval(ratio)
        if found is not None:
            met = found["ratio"] >= target.bound if target.at_least else found["ratio"] <= target.bound
            figures.append({"figure": name, **found, "target": target.bound, "at_least": target.at_least, "met": met})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="What the project claims of its own parts, each a ratio beside its target.",
    plan=plan,
    summary=summary,
)
