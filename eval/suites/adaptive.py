"""Does adaptive attention choose well? All fixed implementations and its own choice, at lengths it was not told of.

Judged are the sizes at which at least two implementations are worth timing. A cell passes if what it chose is the
fastest fixed implementation of the group, or if its time cannot be told from the fastest one's: the 95 % interval of
their paired ratio reaches down to 1.
"""

from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.query import Measured, grouped, measured
from eval.rows import Cell, Row
from eval.statistics import paired_ratio
from eval.suites import Figure, Suite
from eval.suites.calibrate import NUM_HEADS, PHASES, Settings, groups_at, implementation_cells, op_cell
from zoo.attention.choice import Member, chosen_implementation

NAME = "adaptive"
# None of the calibrated lengths, nor a batch size that was calibrated but for one.
SETTINGS = ((1, 96), (2, 192), (1, 384), (2, 384), (1, 768))
ROUNDS = 15
TARGET_SHARE = 0.95
# What begins the detail of adaptive attention's cells, which others lack.
_CHOSEN = "chosen="


def plan(*, lengths: Sequence[int] | None = None, batch_sizes: Sequence[int] | None = None) -> list[Group]:
    """Every held-out setting, forward and with gradients."""
    settings: Settings = SETTINGS
    if lengths is not None or batch_sizes is not None:
        lengths = lengths or tuple(dict.fromkeys(length for _, length in SETTINGS))
        settings = [(batch_size, length) for length in lengths for batch_size in batch_sizes or (1, 2)]
    return groups_at(NAME, settings, _cells, controlled=settings[0], rounds=ROUNDS)


def _cells(member: Member, **place: Any) -> list[Cell]:
    """Every fixed implementation of a mechanism, and what adaptive attention chooses by today's calibration.

    The choice stands in the cell's detail, so that another calibration makes another cell.
    """
    fixed = implementation_cells(member, **place)
    # With one that is worth timing at this size, there is no worst to be faster than.
    if len(fixed) < 2:
        return []
    name, phase = member.declared.name, PHASES[place["mode"]]
    mapping = {
        "name": "adaptive" if name == "softmax" else f"adaptive(of={name})",
        "mechanism": "adaptive",
        "implementation": "calibrated",
        "of": name,
        "parameters": member.own_parameters,
        "phase": phase,
    }
    size: dict[str, int] = {"rows": place["batch_size"] * NUM_HEADS, "length": place["length"]}
    chosen = chosen_implementation(member.declared, member.parameters, phase=phase, **size, causal=True)
    return [*fixed, op_cell(mapping, **place, detail=f"{_CHOSEN}{chosen}")]


def summary(rows: Sequence[Row]) -> list[Figure]:
    """The shares over all settings and mechanisms, then each of them.

    `best_or_tied` is the share in which the choice is the fastest or tied with it, `slower_than_worst` the number in
    which it is slower than every fixed implementation.
    """
    cells = []
    timed = measured(rows, timed=True)
    # Of one mechanism in the same rounds.
    for (_, name), found in grouped(timed, lambda each: (each.rounds, _mechanism(each.cell))).items():
        fixed = sorted((each for each in found if not each.cell.detail), key=lambda each: each.median)
        ours = next((each for each in found if each.cell.detail), None)
        if ours is not None and len(fixed) > 1:
            cells.append({"mechanism": name, **_verdict(ours, best=fixed[0], worst=fixed[-1])})
    if not cells:
        return []
    share = sum(cell["best_or_tied"] for cell in cells) / len(cells)
    slower = sum(cell["slower_than_worst"] for cell in cells)
    head = {
        "cells": len(cells),
        "best_or_tied": share,
        "target": TARGET_SHARE,
        "met": share >= TARGET_SHARE and slower == 0,
        "best": sum(cell["chosen"] == cell["best"] for cell in cells) / len(cells),
        "slower_than_worst": slower,
    }
    return [head, *cells]


def _mechanism(cell: Cell) -> str:
    mapping = cell.attention_mapping
    return str(mapping.get("of", mapping["mechanism"]))


def _verdict(ours: Measured, *, best: Measured, worst: Measured) -> Figure:
    to_best, to_worst = (paired_ratio(ours.samples, each.samples) for each in (best, worst))
    chosen = ours.cell.detail.removeprefix(_CHOSEN)
    fastest, slowest = (each.cell.attention_mapping["implementation"] for each in (best, worst))
    return {
        "group": ours.cell.group,
        "chosen": chosen,
        "best": fastest,
        "worst": slowest,
        "best_or_tied": chosen == fastest or (to_best.low is not None and to_best.low <= 1),
        "ratio_to_best": to_best.value,
        "ratio_low": to_best.low,
        "ratio_high": to_best.high,
        "slower_than_worst": to_worst.low is not None and to_worst.low > 1,
    }


SUITE = Suite(name=NAME, plan=plan, summary=summary)
