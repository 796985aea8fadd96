"""What the project claims of its own parts, each a ratio of two cells beside its target.

All in float32 or the device's own dtype, one sequence, 8 heads of 64. What a whole step makes beside other libraries,
and what MLX's products make with another BLAS, is measured by `make peers`.
"""

from collections.abc import Sequence

from eval.bench import Group
from eval.query import ratio_of
from eval.rows import Cell, Row
from eval.rows.cell import Mode
from eval.statistics import Contrast
from eval.suites import Figure, Suite, by_group, statuses, with_interval
from eval.suites.series import cells_of, series_named
from zoo.runtime.backend import default_dtype, dtype_name

NAME = "targets"
BIDIRECTIONAL = "linear(bidirectional)"
_MEMORY_ROUNDS = 2

# Figure -> group and series of the numerator, those of the denominator, whether their ratio should be at least the
# bound (else at most), and the bound: of peak bytes where the figure says so, else of seconds of the same rounds.
TARGETS = {
    "time of a window by a mask over blocks": (("window", "swa_masked"), ("window", "swa"), True, 4.0),
    "peak of a window at 2048 tokens over 1024": (("memory L=2048", "swa"), ("memory L=1024", "swa"), False, 2.3),
    "peak of tiles over the written-out scores": (
        ("memory L=4096", "mha_tiled"),
        ("memory L=4096", "mha_manual"),
        False,
        0.15,
    ),
    "time of causal linear attention over bidirectional": (("linear", "linear"), ("linear", BIDIRECTIONAL), False, 1.3),
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
    for name, (numerator, denominator, at_least, bound) in TARGETS.items():
        above, below = (named.get(group, {}).get(series) for group, series in (numerator, denominator))
        if above is None or below is None:
            continue
        found = ratio_of(above, below)
        if name.startswith("peak"):
            peaks = above.peak_bytes, below.peak_bytes
            found = Contrast(value=peaks[0] / peaks[1], low=None, high=None) if peaks[0] and peaks[1] else None
        if found is not None:
            met = found.value >= bound if at_least else found.value <= bound
            figures.append({"figure": name, **with_interval(found), "target": bound, "at_least": at_least, "met": met})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary)
