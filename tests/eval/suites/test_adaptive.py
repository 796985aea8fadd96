"""The proof of adaptive attention judges by rows: a good choice passes, a bad one does not."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from eval.bench import Group
from eval.rows import Cell, Row
from eval.suites import SuiteRequest, adaptive, calibrate
from eval.suites.calibrate import PHASES, choosable_mechanisms
from tests.eval.rows_factory import altered_where, noisy, planned, speed_row
from tests.zoo.attention.planted import times, write_own

SUITE = adaptive.SUITE
ONE: dict[str, Any] = {"lengths": (96,), "batch_sizes": (1,)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def _cells(groups: Iterable[Group] | None = None) -> list[Cell]:
    """Those of some groups, or of one length without a calibration."""
    return [cell for group in groups or planned("adaptive", **ONE) for cell in group.cells]


def _rows(cells: list[Cell], adaptive_seconds: float) -> list[Row]:
    """The chosen implementation takes 1 ms, the next 2 ms and so on; adaptive attention what is said."""
    rows = []
    order: dict[tuple[str, str], int] = {}
    chosen = {
        (cell.group, cell.attention_mapping["of"]): cell.detail.removeprefix("chosen=") for cell in cells if cell.detail
    }
    for cell in cells:
        mapping = cell.attention_mapping
        if cell.detail:
            seconds = adaptive_seconds
        elif mapping["implementation"] == chosen[cell.group, mapping["mechanism"]]:
            seconds = 1e-3
        else:
            order[cell.group, mapping["mechanism"]] = order.get((cell.group, mapping["mechanism"]), 1) + 1
            seconds = 1e-3 * order[cell.group, mapping["mechanism"]]
        rows.append(speed_row(cell, noisy(seconds, seed=cell.identity)))
    return rows


def test_the_lengths_are_held_out_and_every_choosable_mechanism_is_judged() -> None:
    assert {length for _, length in adaptive.SETTINGS} & {length for _, length in calibrate.SETTINGS} == set()
    cells = _cells(planned("adaptive"))
    found = {(cell.attention_mapping["of"], cell.mode) for cell in cells if cell.detail}
    assert found == {(name, mode) for name in choosable_mechanisms() for mode in PHASES}


def test_a_choice_is_judged_only_where_there_are_two_to_choose_from() -> None:
    cells = _cells(planned("adaptive"))
    fixed = [(cell.group, cell.attention_mapping["mechanism"]) for cell in cells if not cell.detail]
    assert all(fixed.count((cell.group, cell.attention_mapping["of"])) > 1 for cell in cells if cell.detail)


def test_a_cell_names_what_today_s_calibration_chooses() -> None:
    def softmax_cell() -> Cell:
        return next(
            cell
            for cell in _cells(SUITE.groups(SuiteRequest(**ONE)))
            if cell.variant == "adaptive" and cell.mode == "forward_backward"
        )

    write_own(times("softmax", {"manual": {64: 0.5}, "fused": {64: 1.0}}))
    before = softmax_cell()
    write_own(times("softmax", {"manual": {64: 1.0}, "fused": {64: 0.5}}))
    after = softmax_cell()
    assert (before.detail, after.detail) == ("chosen=manual", "chosen=fused")
    assert before.identity != after.identity, "rows of another choice must not be taken for this one's"


def test_the_best_choice_meets_the_target() -> None:
    head, *found = SUITE.summary(_rows(_cells(), adaptive_seconds=1e-3))
    assert (head["best_or_tied"], head["slower_than_worst"], head["met"]) == (1.0, 0, True)
    assert len(found) == head["cells"] == len(choosable_mechanisms()) * len(PHASES)
    assert all(each["chosen"] == each["best"] for each in found)


def _is_chosen(row: Row) -> bool:
    return row.cell is not None and bool(row.cell.detail)


def _with_another_choice(rows: list[Row]) -> list[Row]:
    """The rows as if adaptive attention had chosen something else."""
    return altered_where(rows, _is_chosen, "cell", detail="chosen=another")


@pytest.mark.parametrize(("seconds", "share"), [(0.999e-3, 1.0), (1.1e-3, 0.0)])
def test_another_choice_is_tied_where_it_cannot_be_told_from_the_best(seconds: float, share: float) -> None:
    head, *found = SUITE.summary(_with_another_choice(_rows(_cells(), adaptive_seconds=seconds)))
    assert (head["best"], head["best_or_tied"], head["slower_than_worst"], head["met"]) == (0.0, share, 0, share == 1.0)
    assert all((each["ratio_low"] <= 1) is (share == 1.0) for each in found)


def test_what_is_slower_than_every_fixed_choice_is_counted_even_if_its_choice_is_the_best() -> None:
    head, *found = SUITE.summary(_rows(_cells(), adaptive_seconds=1.0))
    assert head["slower_than_worst"] == len(found)
    assert head["met"] is False


def test_each_phase_has_one_control_which_is_no_choice() -> None:
    groups = planned("adaptive")
    controlled = [group for group in groups if group.control]
    assert [group.baseline.mode for group in controlled] == list(PHASES)
    rows = _rows(_cells(), adaptive_seconds=1e-3)
    controls = [speed_row(group.control_cell, noisy(1e-6)) for group in planned("adaptive", **ONE) if group.control]
    assert len(controls) == len(PHASES)
    assert SUITE.summary([*rows, *controls]) == SUITE.summary(rows)


def test_choices_are_held_against_times_of_the_same_rounds_only() -> None:
    rows = _rows(_cells(), adaptive_seconds=1e-3)
    others = altered_where(rows, _is_chosen, "timing", rounds_id="others")
    assert SUITE.summary(rows)
    assert SUITE.summary(others) == []
