"""The flash comparison's 48 cells, one function computed in four ways: batch 1 to 8, length 64 to 512, head 32 to 128.

Its "baseline" is done right (`mha_manual`); its "practical" and "demo" were one class around MLX's own attention
(`mha`); what it hoped for is an online softmax (`mha_tiled`); its proof of concept was a Metal kernel that failed on
every call and silently did something else: here it runs and is checked, or its row says that it is unavailable.
"""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Cell, Row
from eval.suites.findings import Ratio, by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.series import published_series
from eval.suites.suite import Suite, SuiteRequest, require_free

NAME = "grid48"
BATCH_SIZES, LENGTHS, HEAD_DIMS = (1, 2, 4, 8), (64, 128, 256, 512), (32, 64, 128)
# Scores of one head, over the batch: from 4 rows of 512 tokens on.
_MANY_SCORES, _MAX_ROUNDS = 2**20, 10
BASELINE, CANDIDATES, KERNEL = "mha_manual", ("mha", "mha_tiled"), "metal_kernel_poc"


def groups(request: SuiteRequest) -> list[Group]:
    """The 48 groups; lengths and batch sizes are the user's choice.

    Raises:
        UserError: If the request sets anything else.
    """
    require_free(request, NAME, ("lengths", "batch_sizes"))
    chosen = [published_series(name) for name in (BASELINE, *CANDIDATES)]
    found = []
    for batch_size, length, head_dim in itertools.product(
        request.batch_sizes or BATCH_SIZES, request.lengths or LENGTHS, HEAD_DIMS
    ):
        setting = {
            "suite": NAME,
            "group": f"B={batch_size} L={length} H={head_dim}",
            "builder": "op",
            "level": "op",
            "mode": "forward",
            "batch_size": batch_size,
            "length": length,
            "head_dim": head_dim,
            "causal": False,
        }
        kernel = Cell.model_validate({**setting, "builder": KERNEL, "variant": KERNEL})
        # A quarter of a second a call; the other 42 groups have controls enough.
        large = batch_size * length**2 >= _MANY_SCORES
        cells = (*cells_of(chosen, setting), kernel)
        found.append(Group(cells=cells, control=not large, max_rounds=_MAX_ROUNDS if large else None))
    return found


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Over the cells: median and range of each implementation's time over the baseline's, and of the A/A control."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    timed = by_group(timed_rows(rows, NAME))
    for name in (*CANDIDATES, KERNEL):
        ratios = [
            ratio
            for variants in timed.values()
            if name in variants and BASELINE in variants
            if (ratio := ratio_of(variants[name], variants[BASELINE])) is not None
        ]
        figures += _over_cells(f"{name} over {BASELINE}", ratios)
    controls = [
        Ratio(ratio=row.comparison.ratio, low=row.comparison.ratio_low, high=row.comparison.ratio_high)
        for row in rows
        if row.comparison is not None and row.cell is not None and (row.cell.suite, row.cell.role) == (NAME, "control")
    ]
    return figures + _over_cells(f"{BASELINE} over itself (A/A)", controls)


def _over_cells(figure: str, ratios: Sequence[Ratio]) -> list[dict[str, Any]]:
    values = [ratio["ratio"] for ratio in ratios]
    if not values:
        return []
    faster = sum(1 for ratio in ratios if ratio["high"] is not None and ratio["high"] < 1)
    slower = sum(1 for ratio in ratios if ratio["low"] is not None and ratio["low"] > 1)
    counts = {"cells": len(values), "surely_faster": faster, "surely_slower": slower}
    return [
        {"figure": figure, "median": statistics.median(values), "least": min(values), "most": max(values), **counts}
    ]


SUITE = Suite(
    name=NAME,
    purpose="The flash comparison's 48 cells: manual, fused and tiled attention, and a kernel where there is Metal.",
    groups=groups,
    summary=summary,
)
