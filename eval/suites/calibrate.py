"""Measures what `attention=adaptive` chooses by: each implementation of each mechanism on this device.

Decoding is not measured, for there is nothing to choose: softmax mechanisms read their cache by one and the same code,
and linear attention's default takes a single step of its recurrence, which is the least there is to do.
Every mechanism of the registry that has something to choose is in it, at its default parameters.
"""

import logging
from collections.abc import Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Cell, Row
from eval.suites.implementations import PHASES, choosable_mechanisms, implementation_cells
from eval.suites.suite import Suite, SuiteRequest
from zoo.attention.calibration import (
    REMEDY,
    Calibration,
    Measurement,
    Provenance,
    calibration_path,
    load_calibration,
    write_calibration,
)
from zoo.attention.mechanism import GROUPING
from zoo.config import UserError

NAME = "calibrate"
# In between, times are interpolated. What works in windows, blocks or tiles pads to 64 or 128 tokens, so times jump
# soon after 64 and after 128: power laws on either side of a jump are met, one across it is not. How times grow with
# the batch has no jumps, so two lengths tell.
SETTINGS = ((1, 32), (1, 72), (1, 104), (1, 128), (1, 160), (1, 256), (1, 1024), (4, 72), (4, 256))
# Where the baseline is timed a second time: whether the machine was quiet is told once for each phase.
CONTROLLED = (1, 256)
# Medians that tell implementations apart, in minutes for all together; two builds of five rounds each.
ROUNDS = 10
_NOT_PARAMETERS = {"name", "mechanism", "implementation", *GROUPING}

logger = logging.getLogger(__name__)


def groups(request: SuiteRequest) -> list[Group]:
    """What this device's calibration lacks: all of it if there is none that holds, nothing if it is complete.

    Raises:
        UserError: If the request names variants or sizes: a calibration is of everything.
    """
    if request != SuiteRequest():
        raise UserError(f"suite={NAME} must be given alone: it measures what it needs; got further choices")
    present = load_calibration(None)
    known = set() if present is None else {_setting(each) for each in present.measurements}
    planned = [_group(mode, batch_size, length) for mode in PHASES for batch_size, length in SETTINGS]
    return [group for group in planned if any(_cell_setting(cell) not in known for cell in group.cells)]


def _group(mode: Any, batch_size: int, length: int) -> Group:
    name = f"{mode} B={batch_size} L={length}"
    cells = [
        cell
        for each in choosable_mechanisms()
        for cell in implementation_cells(
            each, suite=NAME, group=name, mode=mode, batch_size=batch_size, length=length
        ).values()
    ]
    baseline = next(index for index, cell in enumerate(cells) if cell.attention_mapping["mechanism"] == "softmax")
    cells[baseline] = cells[baseline].model_copy(update={"role": "baseline"})
    return Group(cells=tuple(cells), control=(batch_size, length) == CONTROLLED, max_rounds=ROUNDS)


def conclude(rows: Sequence[Row]) -> dict[str, Any]:
    """Writes the calibration of this device from rows, beside what it holds already; nothing if there are none.

    Returns:
        `calibration`, where it lies, and `up_to_date`, whether there was nothing to add.
    """
    told = {"calibration": str(calibration_path())}
    timed = [row for row in _without_controls(rows) if row.status == "ok" and row.timing is not None]
    if not timed:
        return {**told, "up_to_date": True}
    new = [_measurement(row) for row in timed]
    settings = {_setting(each) for each in new}
    present = load_calibration(None)
    kept = [] if present is None else [each for each in present.measurements if _setting(each) not in settings]
    path = calibration_path()
    write_calibration(path, Calibration(provenance=_provenance(timed), measurements=(*kept, *new)))
    logger.info("calibration of %d times written to %s", len(kept) + len(new), path)
    return {**told, "up_to_date": False}


def _without_controls(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.cell is not None and row.cell.role != "control"]


def _provenance(rows: Sequence[Row]) -> Provenance:
    newest = max(rows, key=lambda row: row.recorded_at)
    machine = newest.machine
    return Provenance(
        device=machine.device,
        backend=machine.backend,
        blas=machine.blas,
        native=machine.native,
        mlx=machine.mlx,
        attention_zoo=machine.attention_zoo,
        commit=machine.commit,
        recorded_at=newest.recorded_at,
    )


def _measurement(row: Row) -> Measurement:
    assert row.cell is not None
    assert row.timing is not None
    mapping = row.cell.attention_mapping
    return Measurement(
        mechanism=mapping["mechanism"],
        parameters={key: value for key, value in mapping.items() if key not in _NOT_PARAMETERS},
        implementation=mapping["implementation"],
        phase=PHASES[row.cell.mode],
        batch_size=row.cell.batch_size,
        num_heads=row.cell.num_heads,
        length=row.cell.length,
        median_seconds=row.timing.median_seconds,
    )


def _setting(each: Measurement) -> tuple[object, ...]:
    return each.mechanism, each.implementation, each.phase, each.batch_size, each.num_heads, each.length


def _cell_setting(cell: Cell) -> tuple[object, ...]:
    mapping = cell.attention_mapping
    name = (mapping["mechanism"], mapping["implementation"], PHASES[cell.mode])
    return *name, cell.batch_size, cell.num_heads, cell.length


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many times were measured; then the fastest implementation of each setting."""
    rows = _without_controls(rows)
    head = {"measured": len(rows), "command": REMEDY}
    fastest: dict[tuple[object, ...], Measurement] = {}
    for row in rows:
        if row.timing is None:
            continue
        each = _measurement(row)
        setting = (each.mechanism, each.phase, each.batch_size, each.length)
        if setting not in fastest or each.median_seconds < fastest[setting].median_seconds:
            fastest[setting] = each
    found = [
        {
            "mechanism": each.mechanism,
            "phase": each.phase,
            "batch_size": each.batch_size,
            "length": each.length,
            "fastest": each.implementation,
            "median_seconds": each.median_seconds,
        }
        for each in fastest.values()
    ]
    return [head, *found]


SUITE = Suite(
    name=NAME,
    purpose="what attention=adaptive chooses by: every implementation on this device, kept in the user's cache",
    groups=groups,
    summary=summary,
    conclude=conclude,
)
