import pytest

from eval.rows.store import merge
from tests.eval.rows_factory import altered, speed


@pytest.mark.parametrize("field", ["device", "commit", "mlx"])
def test_one_cell_on_two_machines_or_at_two_commits_is_two_facts(field):
    one, other = (altered(speed(64), "machine", **{field: name}) for name in ("a", "b"))
    assert merge([one], [other]) == [one, other]


def test_one_cell_twice_on_one_machine_is_one_fact_and_the_newer_counts_or_the_later_runs():
    old, new = speed(64, seconds=1.0), speed(64, seconds=2.0)
    assert merge([old], [new]) == [new]
    newest = old.model_copy(update={"recorded_at": "2026-01-02T00:00:00.000+00:00"})
    assert merge([newest], [new]) == merge([new], [newest]) == [newest]


def test_merging_keeps_the_order_and_loses_nothing():
    rows = [speed(length) for length in (256, 64, 128)]
    assert merge(rows[:2], [], rows[2:]) == rows
    assert merge() == []
