"""Ratios on simulated times: lognormal, one in twelve 2 to 5 times too long, with drift that hits both alike."""

import numpy as np
import pytest
from scipy import stats

from eval.statistics.ratios import amdahl, holm, paired_ratio, unpaired_ratio

REPETITIONS = 200


def noise(rng, rounds, spread=0.05):
    slow = np.where(rng.random(rounds) < 1 / 12, rng.uniform(2, 5, rounds), 1.0)
    return slow * rng.lognormal(0, spread, rounds)


def two_times(rng, rounds, spread=0.05):
    drift = np.exp(np.linspace(0, rng.normal(0, 0.1), rounds) + np.cumsum(rng.normal(0, 0.02, rounds)))
    return noise(rng, rounds, spread) * drift, noise(rng, rounds, spread) * drift


@pytest.mark.parametrize("rounds", [3, 7, 15, 20])
def test_intervals_of_equal_times_hold_1_in_nine_of_ten_runs(rounds):
    rng = np.random.default_rng(rounds)
    found = [paired_ratio(*two_times(rng, rounds)) for _ in range(REPETITIONS)]
    assert sum(not each.differs for each in found) >= 0.9 * REPETITIONS
    found = [unpaired_ratio(noise(rng, rounds), noise(rng, rounds + 2)) for _ in range(REPETITIONS)]
    assert sum(not each.differs for each in found) >= 0.9 * REPETITIONS


def test_a_slow_down_of_a_tenth_is_found_in_nine_of_ten_runs():
    rng = np.random.default_rng(0)
    times = [two_times(rng, 20, spread=0.04) for _ in range(REPETITIONS)]
    assert sum(paired_ratio(1.1 * first, second).low > 1 for first, second in times) >= 0.9 * REPETITIONS


def test_pairing_cancels_what_slows_a_whole_round_down():
    weather = np.random.default_rng(2).uniform(1, 9, 15)
    jitter = np.random.default_rng(3).lognormal(0, 0.01, 15)
    paired = paired_ratio(1.2 * weather * jitter, weather)
    assert paired.differs
    assert not unpaired_ratio(1.2 * weather * jitter, weather).differs
    assert paired.ratio == pytest.approx(1.2, rel=0.02)
    assert paired_ratio(weather, 1.2 * weather * jitter).ratio == pytest.approx(1 / paired.ratio)


def test_one_round_has_a_ratio_and_nothing_more():
    found = paired_ratio([0.5], [0.25])
    assert found.ratio == pytest.approx(2)
    assert (found.low, found.high, found.p_value, found.differs) == (None, None, None, False)


@pytest.mark.parametrize("ratio", [paired_ratio, unpaired_ratio])
def test_equal_samples_give_a_degenerate_interval_and_no_test(ratio):
    found = ratio([0.3] * 8, [0.1] * 8)
    assert found.low == found.ratio == found.high == pytest.approx(3)
    assert found.p_value is None
    assert found.differs


def test_rounds_that_one_of_the_two_lacks_are_refused():
    with pytest.raises(ValueError, match="equally many; got 3 and 2"):
        paired_ratio([1, 2, 3], [1, 2])


def test_the_p_value_is_welchs_on_log_seconds_and_needs_no_warning_of_times_that_agree_to_the_last_digits():
    rng = np.random.default_rng(5)
    first, second = rng.lognormal(0, 0.3, 12), rng.lognormal(0.1, 0.1, 12)
    expected = stats.ttest_ind(np.log(first), np.log(second), equal_var=False).pvalue
    assert paired_ratio(first, second).p_value == pytest.approx(expected)
    assert 0 <= paired_ratio([1.0, 1.0, 1.0, 1.0 + 2e-16], [2.0] * 4).p_value <= 1


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [([0.04, 0.01, 0.03, 0.9], [0.09, 0.04, 0.09, 0.9]), ([0.6, 0.7], [1.0, 1.0]), ([], [])],
)
def test_holm_multiplies_by_the_tests_that_are_left_never_falls_and_holds_to_1(p_values, corrected):
    assert holm(p_values) == pytest.approx(corrected)


def test_holm_keeps_false_findings_of_a_whole_set_below_one_in_twenty():
    rng = np.random.default_rng(6)
    false_findings = sum(min(holm(rng.random(20))) < 0.05 for _ in range(2000))
    # Three standard errors above 0.05.
    assert false_findings / 2000 <= 0.065


@pytest.mark.parametrize(
    ("share", "ratio", "expected"),
    [(0.0, 9.0, 1.0), (0.4, 0.2, 0.68), (0.4, 2.0, 1.4), (0.9, 0.0, 0.1), (1.0, 0.5, None), (1.3, 0.5, None)],
)
def test_a_part_that_speeds_up_shortens_the_whole_by_its_share_unless_it_takes_longer_than_it(share, ratio, expected):
    assert amdahl(share, ratio) == (None if expected is None else pytest.approx(expected))
