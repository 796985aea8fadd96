"""Rows are paired in the report where their samples came from the same rounds."""

import pytest

from eval.report.selection import Measured, measured, ratio_of, same_rounds
from eval.rows import Cell
from tests.eval.rows_factory import noisy, speed_row, untimed_row


def _cell(variant: str) -> Cell:
    return Cell(suite="s", group="g", builder="op", variant=variant, level="op", mode="forward", length=64)


def _measured(variant: str, rounds_id: str | None) -> Measured:
    row = speed_row(_cell(variant), noisy(0.5, rounds=5))
    assert row.timing is not None
    (found,) = measured([row.model_copy(update={"timing": row.timing.model_copy(update={"rounds_id": rounds_id})})])
    return found


@pytest.mark.parametrize(
    ("above", "below", "paired"),
    [("one", "one", True), ("one", "other", False), ("one", None, False), (None, None, True)],
)
def test_ratios_are_of_the_same_rounds_only(above: str | None, below: str | None, paired: bool) -> None:
    assert (ratio_of(_measured("a", above), _measured("b", below)) is not None) is paired


def test_what_has_no_times_stays_with_those_that_have() -> None:
    (skipped,) = measured([untimed_row(_cell("c"))])
    rows = [_measured("a", "one"), _measured("b", "one"), skipped]
    assert list(same_rounds(rows).values()) == [rows]
