"""A run goes on where another one stopped, and measures again what may come out differently."""

import dataclasses

import pytest

from eval.bench import Group
from eval.bench.runner import TIME_BUDGET, is_finished, is_group_finished
from eval.rows import Cell, Row
from tests.eval.rows_factory import MACHINE, altered, noisy, planted_group, speed_row

GROUP = planted_group("base", "other")


def _timed(cell: Cell, rounds_id: str | None = "one") -> Row:
    row = speed_row(cell, noisy(0.01, rounds=3))
    return altered(row, "timing", rounds_id=rounds_id)


def _failed(status: str, reason: str = "because", cell: Cell = GROUP.cells[0]) -> Row:
    return _timed(cell).model_copy(update={"status": status, "reason": reason, "timing": None})


def _is_finished(*rows: Row, group: Group = GROUP, refusal=lambda cell: None) -> bool:
    return is_group_finished(group, {row.identity: row for row in rows}, MACHINE, refusal)


@pytest.mark.parametrize(
    "field",
    ["device", "backend", "mlx", "blas", "blas_threads", "native", "cores", "commit", "attention_zoo", "python"],
)
def test_times_are_of_one_machine_whatever_the_commit(field: str) -> None:
    row = _timed(GROUP.cells[0])
    assert is_finished(row, MACHINE)
    value = 7 if field in ("cores", "blas_threads") else "another"
    elsewhere = MACHINE.model_copy(update={field: value})
    assert is_finished(row, elsewhere) is (field in ("commit", "attention_zoo", "python"))


@pytest.mark.parametrize(
    ("status", "again"),
    [("crashed", True), ("out_of_memory", True), ("incorrect", True), ("unavailable", False), ("skipped", False)],
)
def test_faults_are_tried_again_at_another_commit_and_only_there(status: str, again: bool) -> None:
    row = _failed(status)
    assert is_finished(row, MACHINE)
    assert is_finished(row, MACHINE.model_copy(update={"commit": "another"})) is not again


def test_nothing_and_what_there_was_no_time_for_are_unfinished() -> None:
    assert not is_finished(None, MACHINE)
    assert not is_finished(_failed("skipped", f"{TIME_BUDGET} of 1 minutes was used up before"), MACHINE)


def test_a_group_is_finished_if_all_its_times_are_of_the_same_rounds() -> None:
    cells = (*GROUP.cells, GROUP.control_cell)
    assert _is_finished(*(_timed(cell) for cell in cells))
    assert not _is_finished(*(_timed(cell) for cell in cells[:-1]))
    assert _is_finished(_failed("crashed"), *(_timed(cell) for cell in cells[1:]))
    assert not _is_finished(_timed(cells[0], "another"), *(_timed(cell) for cell in cells[1:]))
    assert not _is_finished(_timed(cells[0], None), *(_timed(cell) for cell in cells[1:]))


def test_what_a_group_skipped_is_unfinished_once_it_is_asked_for() -> None:
    reason = "far too slow by default"
    by_default = dataclasses.replace(GROUP, skipped={GROUP.cells[1].identity: reason})
    cells = (*GROUP.cells, GROUP.control_cell)
    rows = [_failed("skipped", reason, cell) if cell == GROUP.cells[1] else _timed(cell) for cell in cells]
    assert _is_finished(*rows, group=by_default)
    assert not _is_finished(*rows)


def test_what_did_not_fit_is_unfinished_once_it_fits() -> None:
    cells = (*GROUP.cells, GROUP.control_cell)
    rows = [_failed("skipped", "does not fit", cell) for cell in cells]
    assert _is_finished(*rows, refusal=lambda cell: "does not fit")
    assert not _is_finished(*rows)
    # A control is the baseline under another name.
    assert not _is_finished(*rows, refusal=lambda cell: None if cell == GROUP.baseline else "does not fit")
