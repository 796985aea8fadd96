"""Rows are paired where their samples came from the same rounds."""

import pytest

from eval.query import Measured, measured, pairs_of, ratio_of, same_rounds
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


def test_samples_of_rounds_that_one_did_not_take_part_in_do_not_pair() -> None:
    one, other = _measured("a", "one"), _measured("b", "one")
    assert other.row.timing is not None
    fewer = other.row.timing.model_copy(update={"samples_seconds": other.row.timing.samples_seconds[:-1]})
    (shorter,) = measured([other.row.model_copy(update={"timing": fewer})], timed=True)
    assert ratio_of(one, shorter) is None
    assert [pair.identities for pair in pairs_of([one], [other])] == [(one.identity, other.identity)]
    assert pairs_of([one], [shorter]) == pairs_of([one], [_measured("b", "two")]) == []
