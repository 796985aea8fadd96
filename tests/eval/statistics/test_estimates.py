import numpy as np
import pytest

from eval.statistics.estimates import estimate


def test_one_sample_has_no_interval_and_no_spread():
    found = estimate([0.25])

    assert (found.median, found.mean) == (0.25, 0.25)
    assert (found.interval_low, found.interval_high, found.coefficient_of_variation) == (None, None, None)


def test_equal_samples_have_a_degenerate_interval():
    found = estimate([0.3] * 11)

    assert found.interval_low == pytest.approx(0.3)
    assert found.interval_high == pytest.approx(0.3)
    assert found.interval_low <= found.median <= found.interval_high
    assert found.coefficient_of_variation == pytest.approx(0, abs=1e-12)


def test_an_outlier_moves_the_mean_and_not_the_median():
    samples = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 50.0]

    found = estimate(samples)

    assert found.median == 1.02
    assert found.mean == pytest.approx(np.mean(samples))
    assert found.interval_low < 1.02 < found.interval_high
    assert found.coefficient_of_variation == pytest.approx(np.std(samples, ddof=1) / np.mean(samples))
