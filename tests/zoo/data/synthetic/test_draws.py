"""Numbers of rows."""

import numpy as np
import pytest

from zoo.data.synthetic.draws import RowDraws

ROWS = RowDraws(key=7, rows_B=np.arange(4001))


def test_a_row_has_the_same_numbers_whoever_stands_beside_it():
    some = RowDraws(key=7, rows_B=np.array([3, 4000, 17]))
    for draw in ("bits", "uniform"):
        assert (getattr(some, draw)(1, 5) == getattr(ROWS, draw)(1, 5)[[3, 4000, 17]]).all()
    kept = np.arange(4001) % 5 == 2
    assert (ROWS.only(kept).below(2, 3, 10) == ROWS.below(2, 3, 10)[kept]).all()


def test_purposes_and_keys_share_no_numbers():
    streams = [ROWS.bits(1, 5), ROWS.bits(2, 5), RowDraws(key=8, rows_B=ROWS.rows_B).bits(1, 5)]
    assert len(np.unique(np.concatenate(streams))) == 3 * 4001 * 5


def test_numbers_below_a_bound_come_equally_often():
    counts = np.bincount(ROWS.below(3, 3, 12).reshape(-1), minlength=12)
    # Six standard deviations of a binomial around 1000.
    assert len(counts) == 12
    assert abs(counts - 4001 * 3 / 12).max() < 6 * 31


def test_distinct_numbers_are_distinct_and_in_random_order():
    drawn = ROWS.distinct(4, 3, 4)
    assert (np.sort(drawn, axis=1)[:, 1:] > np.sort(drawn, axis=1)[:, :-1]).all()
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(orders) == 4 * 3 * 2
    assert abs(counts - 4001 / 24).max() < 6 * 13


def test_uniform_numbers_fill_the_open_interval():
    drawn = ROWS.uniform(5, 7)
    assert 0 < drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
