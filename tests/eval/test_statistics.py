"""Intervals, ratios and growth on simulated times: lognormal, some of them too long, with drift that hits all alike."""

import math

import numpy as np
import pytest
from scipy import stats

from eval.statistics import (
    amdahl,
    constant_relative_spread,
    contrast,
    crossover,
    holm,
    logarithms,
    median_of,
    paired_difference,
    paired_ratio,
    scaling_exponent,
    unpaired_ratio,
)
from tests.eval.claims.worlds import PRINTED

REPETITIONS = 200
LENGTHS = (128, 256, 512, 1024)


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
    # The logarithm of one and back is above it, of the other below.
    for time in (0.1, 0.003):
        equal = median_of([time] * 11)
        assert equal.low <= equal.value == time <= equal.high
        assert (equal.low, equal.high) == pytest.approx((time, time))
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
    assert paired.value == pytest.approx(1.2, rel=0.02)
    assert paired_ratio(weather, 1.2 * weather * jitter).value == pytest.approx(1 / paired.value)


def test_one_round_has_a_ratio_and_nothing_more():
    found = paired_ratio([0.5], [0.25])
    assert found.value == pytest.approx(2)
    assert (found.low, found.high, found.p_value, found.differs) == (None, None, None, False)


@pytest.mark.parametrize("ratio", [paired_ratio, unpaired_ratio])
def test_equal_samples_give_a_degenerate_interval_and_no_test(ratio):
    found = ratio([0.3] * 8, [0.1] * 8)
    assert found.low == found.value == found.high == pytest.approx(3)
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


def noisy(times, rounds=15, spread=0.03, seed=0):
    rng = np.random.default_rng(seed)
    return [list(time * rng.lognormal(0, spread, rounds)) for time in times]


def crossing(seed):
    return noisy([1.0] * 4, seed=seed), noisy([(n / 400) ** 0.5 for n in LENGTHS], seed=1000 + seed)


@pytest.mark.parametrize(
    ("line", "slope"),
    [("MHA", 0.65), ("BlockSparse (bs=32)", 0.25), ("BlockSparse (bs=64)", 0.24), ("LinearAttn", 0.24)],
)
def test_the_published_table_gives_its_own_slopes(line, slope):
    found = scaling_exponent(list(PRINTED[line]), [[each] for each in PRINTED[line].values()])
    assert round(found.value, 2) == slope
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("rounds", [3, 15])
def test_a_power_law_is_found_within_its_interval_in_whatever_order_the_lengths_come(rounds):
    samples = noisy([1e-6 * length**1.7 for length in LENGTHS], rounds)
    found = scaling_exponent(LENGTHS, samples)
    assert found.low < 1.7 < found.high
    assert found.high - found.low < 0.5
    assert scaling_exponent(LENGTHS[::-1], samples[::-1]).value == pytest.approx(found.value)


def test_intervals_of_slopes_and_crossovers_cover_the_truth():
    slopes = [scaling_exponent(LENGTHS, noisy(LENGTHS, seed=seed, spread=0.1)) for seed in range(100)]
    assert sum(each.low <= 1 <= each.high for each in slopes) >= 90
    lengths = [crossover(LENGTHS, *crossing(seed)) for seed in range(100)]
    assert all(each.low <= each.length <= each.high for each in lengths)
    assert sum(each.low <= 400 <= each.high for each in lengths) >= 90


@pytest.mark.parametrize("lengths", [(128,), (128, 128)])
def test_a_slope_needs_two_lengths(lengths):
    with pytest.raises(ValueError, match="two different ones"):
        scaling_exponent(lengths, [[1.0]] * len(lengths))


def test_a_crossover_lies_where_the_log_ratio_passes_0_and_stays_beyond():
    # Ratio 2 at 128 and 1/2 at 512: straight through 256 in logarithms.
    found = crossover([128, 512], [[2.0], [1.0]], [[1.0], [2.0]])
    assert found.length == pytest.approx(256)
    assert (found.faster_at, found.low, found.high) == ("long lengths", None, None)
    assert 512 < crossover(LENGTHS, [[2.0], [0.9], [1.1], [0.5]], [[1.0]] * 4).length < 1024


def test_exchanging_the_two_says_that_the_other_is_faster_and_the_order_of_lengths_says_nothing():
    first, second = crossing(1)
    there, back = crossover(LENGTHS, first, second), crossover(LENGTHS, second, first)
    assert there.length == pytest.approx(back.length)
    assert (there.faster_at, back.faster_at) == ("long lengths", "short lengths")
    assert there == crossover(LENGTHS[::-1], first[::-1], second[::-1])


@pytest.mark.parametrize(("factor", "faster_at"), [(0.5, "every length"), (2.0, "no length")])
def test_there_is_no_crossover_where_one_is_faster_throughout(factor, faster_at):
    base = noisy([1.0, 1.5, 2.5, 6.0], seed=3)
    found = crossover(LENGTHS, [[factor * each for each in samples] for samples in base], base)
    assert (found.length, found.low, found.high, found.faster_at) == (None, None, None, faster_at)


def test_an_interval_may_be_open_beyond_the_longest_length():
    # Faster at the last length by far less than the noise.
    times = noisy([2.0, 1.6, 1.3, 1.0], spread=0.1, seed=4)
    found = crossover(LENGTHS, times, noisy([1.0] * 4, spread=0.1, seed=5))
    assert found.low is not None
    assert found.high is None
