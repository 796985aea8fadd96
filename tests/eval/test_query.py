"""Rows are paired where their samples came from the same rounds."""

import pytest

from eval.query import Measured, measured, pairs_of, ratio_of, same_rounds
from tests.eval.rows_factory import altered, noisy, plain_cell, speed_row, untimed_row


def _measured(variant: str, rounds_id: str | None, rounds: int = 5) -> Measured:
    row = speed_row(plain_cell(variant=variant), noisy(0.5, rounds=rounds))
    (found,) = measured([altered(row, "timing", rounds_id=rounds_id)])
    return found


@pytest.mark.parametrize(
    ("above", "below", "paired"),
    [("one", "one", True), ("one", "other", False), ("one", None, False), (None, None, True)],
)
def test_ratios_are_of_the_same_rounds_only(above: str | None, below: str | None, paired: bool) -> None:
    assert (ratio_of(_measured("a", above), _measured("b", below)) is not None) is paired


def test_what_has_no_times_stays_with_those_that_have() -> None:
    (skipped,) = measured([untimed_row(plain_cell(variant="c"))])
    rows = [_measured("a", "one"), _measured("b", "one"), skipped]
    assert list(same_rounds(rows).values()) == [rows]


def test_samples_of_rounds_that_one_did_not_take_part_in_do_not_pair() -> None:
    one, other, shorter = _measured("a", "one"), _measured("b", "one"), _measured("b", "one", rounds=4)
    assert ratio_of(one, shorter) is None
    assert [pair.identities for pair in pairs_of([one], [other])] == [(one.identity, other.identity)]
    assert pairs_of([one], [shorter]) == pairs_of([one], [_measured("b", "two")]) == []
