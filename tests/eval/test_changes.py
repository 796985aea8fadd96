import pytest

from eval.query import changes
from tests.eval.rows_factory import altered, noisy, plain_cell, quality_row, speed_row, untimed_row


def row(length=64, seconds=1.0, seed=0, **machine):
    made = speed_row(plain_cell(length), noisy(seconds, seed=seed, noise=0.02))
    return altered(made, "machine", **machine)


def test_what_became_slower_is_flagged_and_what_did_not_is_not():
    now = [row(64, 1.0, seed=1), row(128, 1.2, seed=2)]
    then = [row(64, 1.0, seed=3), row(128, 1.0, seed=4)]
    same, slower = changes(now, then)
    assert not same.changed
    assert slower.changed
    assert slower.ratio.low > 1
    assert slower.ratio.ratio == pytest.approx(1.2, rel=0.03)


def test_p_values_are_corrected_over_all_cells():
    found = changes([row(n, 1.0, seed=n) for n in (1, 2, 3)], [row(n, 1.0, seed=10 + n) for n in (1, 2, 3)])
    raw = [each.ratio.p_value for each in found]
    assert min(each.p_value for each in found) == pytest.approx(min(1.0, 3 * min(raw)))


def test_cells_of_one_run_only_are_left_out():
    found = changes([row(64), row(128)], [row(128), row(256)])
    assert [each.cell.length for each in found] == [128]


def test_a_cell_that_stopped_working_is_a_change():
    (found,) = changes([untimed_row(plain_cell(), status="crashed", reason="signal 11")], [row()])
    assert found.changed
    assert (found.row.status, found.other.status, found.ratio) == ("crashed", "ok", None)


def test_two_devices_are_never_compared_silently():
    (found,) = changes([row(device="M4")], [row(device="M1")])
    assert found.notice == "different devices: device: M1 -> M4"


def test_versions_and_commits_that_differ_are_named():
    (found,) = changes([row(commit="b", mlx="0.33")], [row(commit="a", mlx="0.32")])
    assert found.notice == "different versions: mlx: 0.32 -> 0.33, commit: a -> b"


def test_equal_machines_need_no_notice():
    (found,) = changes([row()], [row()])
    assert found.notice is None


def test_of_merged_rows_the_same_devices_is_taken():
    mine = row(seed=1, seconds=2.0, device="M1")
    other = row(seed=2, seconds=7.0, device="M4").model_copy(update={"recorded_at": "2030-01-01T00:00:00+00:00"})
    (found,) = changes([row(seed=3, seconds=2.0, device="M1")], [mine, other])
    assert found.ratio.ratio == pytest.approx(1, rel=0.05)


def test_quality_rows_are_no_speeds():
    trained = quality_row("mha", 0, 2.0)
    assert changes([trained], [trained]) == []
