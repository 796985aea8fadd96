"""PyTorch issue 181725: five layouts of one input, for one linear layer and for the attention layer, at B=1 and B=4.

On Apple's GPU PyTorch takes a slow path for a transposed view whose strides only look contiguous; here the same five
inputs meet MLX. The builder says what each layout is.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Cell, Row
from eval.speed.builders.layouts import LAYOUTS, SUBJECTS
from eval.suites.findings import by_group, ratio_of, statuses, timed_rows
from eval.suites.series import published_series
from eval.suites.suite import Suite, SuiteRequest, require_free

NAME = "layouts"
LENGTH, HIDDEN_SIZE, NUM_HEADS, BATCH_SIZES = 32, 512, 8, (1, 4)


def groups(request: SuiteRequest) -> list[Group]:
    """One group for each subject and batch size; nothing is the user's choice.

    Raises:
        UserError: If the request sets anything.
    """
    require_free(request, NAME, ())
    attention = published_series("mha").attention
    found = []
    for subject, batch_size in itertools.product(SUBJECTS, BATCH_SIZES):
        cells = tuple(
            Cell(
                suite=NAME,
                group=f"{subject} B={batch_size}",
                builder="layouts",
                variant=layout,
                attention=attention if subject == "attention" else None,
                role="candidate" if index else "baseline",
                level="layer",
                mode="forward",
                batch_size=batch_size,
                length=LENGTH,
                num_heads=NUM_HEADS,
                head_dim=HIDDEN_SIZE // NUM_HEADS,
                hidden_size=HIDDEN_SIZE,
                causal=False,
                compiled=False,
                detail=f"{subject}: {layout}",
            )
            for index, layout in enumerate(LAYOUTS)
        )
        found.append(Group(cells=cells))
    return found


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each layout's time over the native one's."""
    figures: list[dict[str, Any]] = [statuses(rows, NAME)]
    native = next(iter(LAYOUTS))
    for group, variants in by_group(timed_rows(rows, NAME)).items():
        for layout in LAYOUTS:
            if layout != native and {layout, native} <= set(variants):
                ratio = ratio_of(variants[layout], variants[native])
                if ratio is not None:
                    figures.append({"figure": f"{layout} over {native}", "group": group, **ratio})
    return figures


SUITE = Suite(
    name=NAME,
    purpose="Five layouts of one input to a linear layer and to the attention layer (PyTorch issue 181725).",
    groups=groups,
    summary=summary,
)
