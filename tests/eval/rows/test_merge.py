from eval.rows.store import merge
from tests.eval.rows_factory import altered, speed


def of(row, *, recorded_at="2026-01-01T00:00:00.000+00:00", **machine):
    return altered(row, "machine", **machine).model_copy(update={"recorded_at": recorded_at})


def test_one_cell_on_two_machines_is_two_facts():
    here, there = of(speed(64), device="M1"), of(speed(64), device="M4")

    assert merge([here], [there]) == [here, there]


def test_one_cell_at_two_commits_is_two_facts():
    before, after = of(speed(64), commit="a"), of(speed(64), commit="b")

    assert merge([before], [after]) == [before, after]


def test_one_cell_twice_on_one_machine_is_one_fact_and_the_newer_counts():
    old = of(speed(64, seconds=1.0), recorded_at="2026-01-01T00:00:00.000+00:00")
    new = of(speed(64, seconds=2.0), recorded_at="2026-01-02T00:00:00.000+00:00")

    assert merge([old], [new]) == merge([new], [old]) == [new]


def test_of_equally_old_rows_the_later_runs_counts():
    first, second = speed(64, seconds=1.0), speed(64, seconds=2.0)

    assert merge([first], [second]) == [second]


def test_merging_keeps_the_order_and_loses_nothing():
    rows = [speed(length) for length in (256, 64, 128)]

    assert merge(rows[:2], [], rows[2:]) == rows
    assert merge() == []
