"""Ratios are of samples that came from the same rounds."""

import pytest

from eval.rows import Cell, Row
from eval.suites.findings import TimedRow, ratio_of, timed_rows
from tests.eval.rows_factory import noisy, speed_row


def _timed(variant: str, rounds_id: str | None, *, rounds: int = 5) -> TimedRow:
    cell = Cell(suite="s", group="g", builder="op", variant=variant, level="op", mode="forward", length=64)
    row: Row = speed_row(cell, noisy(0.5, rounds=rounds))
    assert row.timing is not None
    named = row.model_copy(update={"timing": row.timing.model_copy(update={"rounds_id": rounds_id})})
    (found,) = timed_rows([named], "s")
    return found


@pytest.mark.parametrize(
    ("above", "below", "paired"),
    [("one", "one", True), ("one", "other", False), ("one", None, False), (None, None, True)],
)
def test_samples_pair_within_the_same_rounds_only(above: str | None, below: str | None, paired: bool) -> None:
    found = ratio_of(_timed("a", above), _timed("b", below))
    assert (found is not None) is paired


def test_samples_of_rounds_that_one_did_not_take_part_in_do_not_pair() -> None:
    assert ratio_of(_timed("a", "one"), _timed("b", "one", rounds=4)) is None
