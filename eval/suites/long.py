"""Long texts: time and memory of one head, forward and backward, at lengths where L² tells.

A single head of 64, causal: eight take eight times as long and as much, at the same exponents. At the greatest length
only the forward pass is measured, of those whose memory grows with L, against one that is dense: seconds a call.
"""

import itertools
from collections.abc import Sequence

from eval.bench import Group
from eval.query import grouped, measured
from eval.rows import Row
from eval.statistics import scaling_exponent
from eval.suites import Figure, Suite, fewest_rounds, statuses, with_interval
from eval.suites.series import Series, cells_of, series_named

NAME = "long"
LENGTHS, MODES = (1024, 2048, 4096, 8192), ("forward", "forward_backward")
VARIANTS = ("mha", "mha_manual", "mha_tiled", "swa", "swa_masked", "blocksparse", "linear", "gated_delta_chunked")
# Beyond, the dense ones take seconds a call and gigabytes.
_MAX_DENSE_LENGTH = 4096
_DENSE = ("mha_manual", "swa_masked")
# A process for each cell: from where the scores outweigh all else.
_MIN_MEMORY_LENGTH = 2048
_MAX_ROUNDS = {2048: 10, 4096: 5}


def plan(
    *, variants: Sequence[Series] | None = None, lengths: Sequence[int] = LENGTHS, modes: Sequence[str] = MODES
) -> list[Group]:
    """One group for each mode and length."""
    chosen = variants or [series_named(name) for name in VARIANTS]
    found = []
    for mode, length in itertools.product(modes, lengths):
        name = f"{mode} L={length}"
        cells = cells_of(chosen, suite=NAME, group=name, level="op", mode=mode, length=length, num_heads=1)
        skipped = {}
        if length > _MAX_DENSE_LENGTH and variants is None:
            reason = f"{length}² scores a call, in time or memory; up to {_MAX_DENSE_LENGTH} show the growth"
            backward = mode == "forward_backward"
            skipped = {each.identity: reason for each in cells if backward or each.variant in _DENSE}
        rounds, weighed = fewest_rounds(length, _MAX_ROUNDS), length >= _MIN_MEMORY_LENGTH
        control = length < _MAX_DENSE_LENGTH
        found.append(Group(cells=cells, memory=weighed, control=control, max_rounds=rounds, skipped=skipped))
    return found


def summary(rows: Sequence[Row]) -> list[Figure]:
    """Exponents of time and of memory of each variant."""
    figures = [statuses(rows)]
    series = grouped(measured(rows, timed=True), lambda each: (each.cell.mode, each.cell.variant))
    for (mode, name), found in series.items():
        own = {"mode": mode, "variant": name}
        if len(found) > 1:
            time = scaling_exponent([each.cell.length for each in found], [each.samples for each in found])
            figures.append({"figure": "exponent of time", **own, **with_interval(time, "value")})
        weighed = {each.cell.length: [float(each.peak_bytes)] for each in found if each.peak_bytes}
        if len(weighed) > 1:
            memory = scaling_exponent(list(weighed), list(weighed.values()))
            figures.append({"figure": "exponent of peak memory", **own, "value": memory.value})
    return figures


SUITE = Suite(name=NAME, plan=plan, summary=summary)
