"""PyTorch issue 181725: what the layer costs beside the same projections written around MLX's attention by hand.

Six shapes at B=1 and B=4, eager and compiled, equal weights; the gate asks for outputs that are equal to the last bit,
so that every difference in time is overhead and none is mathematics.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Row
from eval.suites.findings import by_group, ratio_of, statuses, timed_rows
from eval.suites.groups import cells_of
from eval.suites.series import published_series
from eval.suites.suite import Suite, SuiteRequest, require_free

NAME = "wrapper"
# (L, D, N), for self-attention: query lengths and widths of the table, some of whose shapes attend across.
SHAPES = ((32, 512, 8), (64, 512, 8), (128, 512, 8), (256, 512, 8), (64, 768, 12), (512, 512, 8))
BATCH_SIZES = (1, 4)
LAYER, INLINED = "mha", "mha_hand_inlined"
TARGET = 1.02


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each shape, batch size and way to run; nothing is the user's choice.

    Raises:
        UserError: If the request sets anything.
    """
    require_free(request, NAME, ())
    layer = published_series(LAYER)
    found = []
    for (length, hidden_size, num_heads), batch_size, compiled in itertools.product(SHAPES, BATCH_SIZES, (True, False)):
        way = "compiled" if compiled else "eager"
        setting = {
            "suite": NAME,
            "group": f"L={length} D={hidden_size} N={num_heads} B={batch_size} {way}",
            "builder": "hand_inlined",
            "level": "layer",
            "mode": "forward",
            "batch_size": batch_size,
            "length": length,
            "num_heads": num_heads,
            "head_dim": hidden_size // num_heads,
            "hidden_size": hidden_size,
            "causal": False,
            "compiled": compiled,
        }
        (inlined,) = cells_of([layer], setting)
        cells = (
            inlined.model_copy(update={"variant": INLINED}),
            inlined.model_copy(update={"builder": "layer", "role": "candidate"}),
        )
        found.append(Group(cells=cells))
    return found


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The layer's time over the inlined code's: each group's, and the worst."""
    figures: list[dict[str, Any]] = []
    for group, variants in by_group(timed_rows(rows, NAME)).items():
        if {LAYER, INLINED} <= set(variants):
            ratio = ratio_of(variants[LAYER], variants[INLINED])
            if ratio is not None:
                figures.append({"figure": "layer over hand-inlined code", "group": group, **ratio})
    differences = [
        row.correctness.max_error
        for row in rows
        if row.correctness is not None and row.cell is not None and row.cell.variant == INLINED
    ]
    counts: list[dict[str, Any]] = [statuses(rows, NAME)]
    if differences:
        known = [value for value in differences if value is not None]
        counts.append({"figure": "largest difference of the outputs", "value": max(known, default=None)})
    if figures:
        worst = max(figures, key=lambda figure: float(figure["ratio"]))
        # One in forty intervals lies above its truth by chance alone: a miss is sure only where the interval says so.
        missed = [each["group"] for each in figures if each["low"] is not None and each["low"] > TARGET]
        met = worst["ratio"] <= TARGET
        counts.append({**worst, "figure": "worst ratio", "target": TARGET, "met": met, "surely_missed": missed})
    return counts + figures


SUITE = Suite(
    name=NAME,
    purpose="The registry's layer against the same code by hand, equal to the last bit (PyTorch issue 181725).",
    groups=groups,
    summary=summary,
)
