"""Differences that seeds pair: what both share cancels, and few pairs are told as few."""

import numpy as np
import pytest
from scipy import stats

from eval.statistics.differences import paired_difference


def test_what_a_seed_does_to_both_cancels() -> None:
    first = [2.0, 3.0, 4.0]
    found = paired_difference([each + 0.1 for each in first], first)
    assert found.difference == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=5), rng.normal(size=5)
    found = paired_difference(list(first), list(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_it_covers_the_truth_in_19_of_20_sets_of_three() -> None:
    rng = np.random.default_rng(1)
    sets = rng.normal(0.3, 1.0, size=(4000, 3))
    found = [paired_difference(list(each), [0.0, 0.0, 0.0]) for each in sets]
    share = sum(each.low <= 0.3 <= each.high for each in found if each.low is not None and each.high is not None)
    assert 0.94 <= share / len(found) <= 0.96


def test_one_pair_has_no_interval() -> None:
    found = paired_difference([2.5], [2.0])
    assert (found.difference, found.low, found.high) == (0.5, None, None)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_pairs_must_be_pairs(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="equally many, at least one"):
        paired_difference(first, second)
