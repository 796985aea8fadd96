import numpy as np
import pytest

from eval.statistics.ratios import crossover, scaling_exponent
from tests.eval.claims.worlds import PRINTED

LENGTHS = (128, 256, 512, 1024)


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
    lengths, seconds = PRINTED[line]["lengths"], PRINTED[line]["seconds"]
    found = scaling_exponent(lengths, [[each] for each in seconds])
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
