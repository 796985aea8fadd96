"""Rows are paired where their samples came from the same rounds, and those of two runs by what was measured."""

import pytest

from eval.query import Measured, Pair, changes, measured, pairs_of, ratio_of, same_rounds
from eval.rows import Row
from eval.statistics import holm
from tests.eval.rows_factory import altered, noisy, plain_cell, quality_row, speed_row, untimed_row


def _measured(variant: str, rounds_id: str | None, rounds: int = 5) -> Measured:
    row = speed_row(plain_cell(variant=variant), noisy(0.5, rounds=rounds))
    (found,) = measured([altered(row, "timing", rounds_id=rounds_id)])
    return found


@pytest.mark.parametrize(
    ("above", "below", "paired"),
    [("one", "one", True), ("one", "other", False), ("one", None, False), (None, None, True)],
)
def test_rows_of_the_same_rounds_pair_and_no_others(above: str | None, below: str | None, paired: bool) -> None:
    one, other, shorter = _measured("a", above), _measured("b", below), _measured("b", below, rounds=4)
    assert pairs_of([one], [other]) == ([Pair(numerator=one, denominator=other)] if paired else [])
    assert (ratio_of(one, other) is not None) is paired
    # One did not take part in all of them.
    assert ratio_of(one, shorter) is None
    (skipped,) = measured([untimed_row(plain_cell(variant="c"))])
    assert ratio_of(one, skipped) is ratio_of(skipped, one) is ratio_of(skipped, skipped) is None
    assert list(same_rounds([one, other, skipped]).values()) == [[one, other, skipped]]


def _run(length: int = 64, seconds: float = 1.0, seed: int = 0, **machine: str) -> Row:
    return altered(speed_row(plain_cell(length), noisy(seconds, seed=seed, noise=0.02)), "machine", **machine)


def test_what_became_slower_is_a_change_and_what_did_not_or_was_not_measured_twice_is_none() -> None:
    now = [_run(64, 1.0, seed=1), _run(128, 1.2, seed=2), _run(256)]
    same, slower = found = changes(now, [_run(64, 1.0, seed=3), _run(128, 1.0, seed=4), _run(512)])
    assert (same.changed, slower.changed) == (False, True)
    assert slower.ratio.low > 1
    assert slower.ratio.value == pytest.approx(1.2, rel=0.03)
    assert [each.p_value for each in found] == holm([each.ratio.p_value for each in found])


def test_a_cell_that_stopped_working_is_a_change_and_a_figure_of_quality_is_none() -> None:
    trained = quality_row("mha", 0, 2.0)
    (found,) = changes([trained, untimed_row(plain_cell(), status="crashed")], [trained, _run()])
    assert found.changed
    assert (found.row.status, found.other.status, found.ratio) == ("crashed", "ok", None)


@pytest.mark.parametrize(
    ("now", "then", "notice"),
    [
        ({"device": "M4"}, {"device": "M1"}, "different devices: device: M1 -> M4"),
        ({"commit": "b", "mlx": "2"}, {"commit": "a", "mlx": "1"}, "different versions: mlx: 1 -> 2, commit: a -> b"),
        ({}, {}, None),
    ],
)
def test_two_devices_and_versions_are_never_compared_silently(
    now: dict[str, str], then: dict[str, str], notice: str | None
) -> None:
    (found,) = changes([_run(**now)], [_run(**then)])
    assert found.notice == notice


def test_of_merged_rows_the_same_devices_is_taken() -> None:
    mine = _run(seed=1, seconds=2.0, device="M1")
    other = _run(seed=2, seconds=7.0, device="M4").model_copy(update={"recorded_at": "2030-01-01T00:00:00+00:00"})
    (found,) = changes([_run(seed=3, seconds=2.0, device="M1")], [mine, other])
    assert found.ratio.value == pytest.approx(1, rel=0.05)
