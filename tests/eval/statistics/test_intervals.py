import math

import numpy as np
import pytest
from scipy import stats

from eval.statistics.intervals import constant_relative_spread, contrast, logarithms, median_of, paired_difference


def test_the_value_is_the_weighted_sum_of_medians():
    sets = [np.array([1.0, 2.0, 30.0]), np.array([5.0, 7.0])]
    assert contrast(sets, [2.0, -1.0]).value == 2 * 2.0 - 6.0


def test_one_sample_in_any_set_leaves_no_interval():
    found = contrast([np.array([1.0, 2.0, 3.0]), np.array([4.0])], [1.0, -1.0])
    assert (found.value, found.low, found.high) == (-2.0, None, None)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 17])
def test_the_interval_holds_its_value_whatever_the_number_of_samples_and_is_the_same_again(count):
    values = np.random.default_rng(count).lognormal(0, 1, (2, count))
    found = contrast(list(values), [1.0, -0.5])
    assert found.low < found.value < found.high
    assert contrast(list(values.copy()), [1.0, -0.5]) == found


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [-1.0], [math.nan], [math.inf]])
def test_only_positive_finite_samples_have_logarithms(bad):
    with pytest.raises(ValueError, match="positive, finite"):
        logarithms(bad)


@pytest.mark.parametrize(
    ("samples", "median"), [([0.25], 0.25), ([0.3] * 11, 0.3), ([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 50.0], 1.02)]
)
def test_a_median_lies_in_its_interval_which_one_time_does_not_have(samples, median):
    found = median_of(samples)
    assert found.value == median
    if len(samples) == 1:
        assert (found.low, found.high) == (None, None)
    else:
        assert found.low <= median <= found.high
        assert (found.low < median < found.high) == (len(set(samples)) > 1)


def test_what_a_seed_does_to_both_cancels_in_their_difference():
    first = [2.0, 3.0, 4.0]
    found = paired_difference([each + 0.1 for each in first], first)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_the_interval_of_a_difference_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=5), rng.normal(size=5)
    found = paired_difference(list(first), list(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_pair_has_no_interval():
    found = paired_difference([2.5], [2.0])
    assert (found.value, found.low, found.high) == (0.5, None, None)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_pairs_must_be_pairs(first, second):
    with pytest.raises(ValueError, match="equally many, at least one"):
        paired_difference(first, second)


def test_the_published_spreads_show_and_few_or_none_show_nothing():
    assert constant_relative_spread([0.05] * 45)
    assert not any(map(constant_relative_spread, ([], [0.05] * 3, [0.0] * 9)))


@pytest.mark.parametrize("seed", range(20))
def test_measured_spreads_do_not_show(seed):
    samples = np.random.default_rng(seed).lognormal(0, 0.05, (4, 20))
    assert not constant_relative_spread(list(samples.std(axis=1, ddof=1) / samples.mean(axis=1)))
