import math

import numpy as np
import pytest
from scipy import stats

from eval.statistics.intervals import constant_relative_spread, contrast, logarithms, median_of, paired_difference


def test_the_value_is_the_weighted_sum_of_medians_and_one_sample_in_any_set_leaves_no_interval():
    found = contrast([np.array([1.0, 2.0, 30.0]), np.array([5.0, 7.0])], [2.0, -1.0])
    assert found.low < found.value == 2 * 2.0 - 6.0 < found.high
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


def test_a_median_lies_in_its_interval_whatever_an_outlier_does_and_one_time_has_none():
    assert (median_of([0.25]).value, median_of([0.25]).low, median_of([0.25]).high) == (0.25, None, None)
    equal = median_of([0.3] * 11)
    assert equal.low <= equal.value == 0.3 <= equal.high
    assert (equal.low, equal.high) == pytest.approx((0.3, 0.3))
    skewed = median_of([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 50.0])
    assert skewed.low < skewed.value == 1.02 < skewed.high


def test_what_a_seed_does_to_both_cancels_in_their_difference():
    first = [2.0, 3.0, 4.0]
    found = paired_difference([each + 0.1 for each in first], first)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    once = paired_difference([2.5], [2.0])
    assert (once.value, once.low, once.high) == (0.5, None, None)


def test_the_interval_of_a_difference_is_that_of_the_paired_t_test():
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    found = paired_difference(list(first), list(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_pairs_must_be_pairs(first, second):
    with pytest.raises(ValueError, match="equally many, at least one"):
        paired_difference(first, second)


def test_the_published_spreads_show_and_few_none_or_measured_ones_do_not():
    assert constant_relative_spread([0.05] * 45)
    assert not any(map(constant_relative_spread, ([], [0.05] * 3, [0.0] * 9)))
    samples = np.random.default_rng(0).lognormal(0, 0.05, (20, 4, 20))
    assert not any(map(constant_relative_spread, samples.std(axis=2, ddof=1) / samples.mean(axis=2)))
