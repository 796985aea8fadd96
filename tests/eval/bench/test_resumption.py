"""A run goes on where another one stopped, and measures again what may come out differently."""

import dataclasses

import pytest

from eval.bench import Group
from eval.bench.runner import TIME_BUDGET, is_finished, is_group_finished
from eval.rows import Cell, Row
from tests.eval.rows_factory import MACHINE, altered, noisy, planted_group, speed_row, untimed_row

GROUP = planted_group("base", "other")
CELLS = GROUP.recorded_cells


def _timed(cell: Cell, rounds_id: str | None = "one") -> Row:
    return altered(speed_row(cell, noisy(0.01, rounds=3)), "timing", rounds_id=rounds_id)


def _is_finished(*rows: Row, group: Group = GROUP, refusal=lambda cell: None) -> bool:
    return is_group_finished(group, {row.identity: row for row in rows}, MACHINE, refusal)


MACHINES = {"device", "backend", "mlx", "blas", "blas_threads", "native", "cores"}


@pytest.mark.parametrize("field", [*sorted(MACHINES), "commit", "attention_zoo", "python"])
@pytest.mark.parametrize("status", ["ok", "unavailable", "skipped", "crashed", "out_of_memory", "incorrect"])
def test_a_row_is_of_one_machine_whatever_the_commit_but_faults_are_tried_again_with_other_code(
    field: str, status: str
) -> None:
    row = _timed(CELLS[0]) if status == "ok" else untimed_row(CELLS[0], status=status)
    assert is_finished(row, MACHINE)
    elsewhere = MACHINE.model_copy(update={field: 7 if field in ("cores", "blas_threads") else "another"})
    mended = status in ("crashed", "out_of_memory", "incorrect") and field in ("commit", "attention_zoo")
    assert is_finished(row, elsewhere) is not (field in MACHINES or mended)


def test_nothing_and_what_there_was_no_time_for_are_unfinished() -> None:
    assert not is_finished(None, MACHINE)
    assert not is_finished(untimed_row(CELLS[0], reason=f"{TIME_BUDGET} of 1 minutes was used up before"), MACHINE)


def test_a_group_is_finished_if_all_its_times_are_of_the_same_rounds() -> None:
    first, *others = map(_timed, CELLS)
    assert _is_finished(first, *others)
    assert not _is_finished(*others)
    assert _is_finished(untimed_row(CELLS[0], status="crashed"), *others)
    assert not _is_finished(_timed(CELLS[0], "another"), *others)
    assert not _is_finished(_timed(CELLS[0], None), *others)


def test_what_a_group_skipped_is_unfinished_once_it_is_asked_for() -> None:
    by_default = dataclasses.replace(GROUP, skipped={CELLS[1].identity: "far too slow by default"})
    rows = [untimed_row(cell) if cell == CELLS[1] else _timed(cell) for cell in CELLS]
    assert _is_finished(*rows, group=by_default)
    assert not _is_finished(*rows)


def test_what_did_not_fit_is_unfinished_once_it_fits() -> None:
    rows = [untimed_row(cell, reason="does not fit") for cell in CELLS]
    assert _is_finished(*rows, refusal=lambda cell: "does not fit")
    assert not _is_finished(*rows)
    # A control is the baseline under another name.
    assert not _is_finished(*rows, refusal=lambda cell: None if cell == GROUP.baseline else "does not fit")
