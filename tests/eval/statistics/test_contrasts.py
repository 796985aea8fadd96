import math

import numpy as np
import pytest

from eval.statistics.contrasts import contrast, logarithms


def test_the_value_is_the_weighted_sum_of_medians():
    sets = [np.array([1.0, 2.0, 30.0]), np.array([5.0, 7.0])]

    assert contrast(sets, [2.0, -1.0]).value == 2 * 2.0 - 6.0


def test_one_sample_in_any_set_leaves_no_interval():
    found = contrast([np.array([1.0, 2.0, 3.0]), np.array([4.0])], [1.0, -1.0])

    assert (found.value, found.low, found.high) == (-2.0, None, None)


def test_equal_samples_give_a_degenerate_interval():
    found = contrast([np.full(9, 0.5), np.full(7, 0.25)], [1.0, 1.0])

    assert found.low == found.value == found.high == 0.75


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 17])
def test_the_interval_holds_its_value_whatever_the_number_of_samples(count):
    values = np.random.default_rng(count).lognormal(0, 1, (2, count))

    found = contrast(list(values), [1.0, -0.5])

    assert found.low < found.value < found.high


def test_the_same_samples_give_the_same_interval():
    values = np.random.default_rng(3).normal(0, 1, 15)

    assert contrast([values], [1.0]) == contrast([values.copy()], [1.0])


def test_the_exponential_takes_all_three_back():
    found = contrast([np.log([2.0, 2.0, 2.0])], [1.0]).exponential

    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [-1.0], [math.nan], [math.inf]])
def test_only_positive_finite_samples_have_logarithms(bad):
    with pytest.raises(ValueError, match="positive, finite"):
        logarithms(bad)
