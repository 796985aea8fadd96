"""What an earlier run settled, and is not measured again: the same work on the same machine."""

from collections.abc import Mapping

from eval.rows import Cell, Machine, Row
from eval.speed.assembly import recorded_cells
from eval.speed.group import Group
from eval.speed.prediction import refusal
from eval.speed.reference import DEVICE

# Begins the reason of a cell that a later run with more time measures after all.
TIME_BUDGET = "time budget"
# A time on two of these is the time of two different things.
_MACHINE = ("device", "backend", "cores", "blas", "blas_threads", "native", "mlx")
# What may have been mended since.
_FAULTS = ("crashed", "out_of_memory", "incorrect")
_CODE = ("commit", "attention_zoo")


def is_finished(row: Row | None, machine: Machine) -> bool:
    """Whether a row settles its cell on this machine, for good, or for ill as long as the code is the same."""
    if row is None or (row.reason or "").startswith(TIME_BUDGET):
        return False
    fields = (*_MACHINE, *_CODE) if row.status in _FAULTS else _MACHINE
    there, here = row.machine.model_dump(), machine.model_dump()
    return all(there[field] == here[field] for field in fields)


def is_group_finished(group: Group, rows: Mapping[str, Row], machine: Machine, available_bytes: int) -> bool:
    """Whether rows settle all of a group.

    Args:
        group: Its cells, and its control.
        rows: By identity.
        machine: This one.
        available_bytes: What was skipped is unfinished if nothing speaks against it now: these, or the group.
    """
    found = {cell.identity: rows.get(cell.identity) for cell in recorded_cells(group)}
    if not all(is_finished(row, machine) for row in found.values()):
        return False
    if any(_is_wanted_now(found[cell.identity], cell, group, available_bytes) for cell in recorded_cells(group)):
        return False
    # The device's own rows are never paired, and those that another suite did not need are older.
    rounds = {row.timing.rounds_id for row in found.values() if row is not None and row.timing is not None}
    return len(rounds) <= 1 or group.baseline.suite == DEVICE


def built_as(cell: Cell, group: Group) -> Cell:
    """A control is the baseline under another name."""
    return group.baseline if cell.role == "control" else cell


def _is_wanted_now(row: Row | None, cell: Cell, group: Group, available_bytes: int) -> bool:
    skipped = row is not None and row.status == "skipped"
    return skipped and cell.identity not in group.skipped and refusal(built_as(cell, group), available_bytes) is None
