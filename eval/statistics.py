"""Figures with intervals, on SciPy: weighted sums of medians of logarithms, which medians, ratios and slopes all are.

Times are positive, skewed to the right, and now and then several times too long (another process had the core), so
that medians of logarithms serve better than means. The interval is the percentile bootstrap, widened for small
samples (Hesterberg 2015, What Teachers Should Know About the Bootstrap, https://arxiv.org/abs/1411.5279, the expanded
percentile interval). On simulated pairs of times (lognormal, 8 % of them 2 to 5 times too long, with drift) it covers
the truth in 94 to 97 % of runs of 5 to 30 rounds; without the widening in 91 to 95 %, as does BCa at many
times the cost; Student's interval of the mean covers too, but is two to four times as wide.
With fewer than five samples a bootstrap of the median can at best return their range, which for three covers 75 %:
there Welch's interval of the means is taken, wide as it is.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# The ends move by less than a tenth of the interval's width from seed to seed, at about two milliseconds a call.
NUM_RESAMPLES = 2000
MIN_BOOTSTRAP_SAMPLES = 5
# Four spreads that agree within one part in a hundred by chance: less than one in ten thousand.
MIN_SPREADS, AGREEMENT = 4, 0.01

Floats = NDArray[np.float64]
FasterAt = Literal["long lengths", "short lengths", "every length", "no length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """A figure of samples and how sure it is: a weighted sum of medians, a ratio of times, or a mean of differences.

    Attributes:
        value: The figure; of a ratio, below 1 the numerator is faster.
        low, high: Its 95 % interval; None where a set has a single sample.
        p_value: Of a ratio, by Welch's t-test on log seconds, not corrected; None where all samples are equal.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None = None

    @property
    def exponential(self) -> "Contrast":
        """The same, taken back from logarithms."""
        low, high = (None if end is None else math.exp(end) for end in (self.low, self.high))
        return Contrast(value=math.exp(self.value), low=low, high=high)

    @property
    def differs(self) -> bool:
        """Of a ratio, whether the interval excludes 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def logarithms(samples: Sequence[float]) -> Floats:
    """Natural logarithms of times; a ValueError if there are none, or one is not positive and finite."""
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"samples must be positive, finite and at least one; got {list(samples)}")
    return np.log(values)


def contrast(sets: Sequence[Floats], weights: Sequence[float]) -> Contrast:
    """Sum over the sets of weight times median; the sets are independent of each other, and none is empty."""
    value = float(sum(weight * np.median(values) for weight, values in zip(weights, sets, strict=True)))
    fewest = min(values.size for values in sets)
    if fewest < 2:
        return Contrast(value=value, low=None, high=None)
    if all(np.ptp(values) == 0 for values in sets):
        return Contrast(value=value, low=value, high=value)
    low, high = (_welch if fewest < MIN_BOOTSTRAP_SAMPLES else _bootstrap)(sets, weights)
    return Contrast(value=value, low=min(low, value), high=max(high, value))


def _bootstrap(sets: Sequence[Floats], weights: Sequence[float]) -> tuple[float, float]:
    # Here and below: it takes longer to import than most of what a command does.
    from scipy import stats

    drawn = np.asarray(weights)[:, None] * _resampled_medians(sets)
    low, high = stats.quantile(drawn.sum(axis=0), _expanded_tails(min(values.size for values in sets)))
    return float(low), float(high)


def _resampled_medians(sets: Sequence[Floats]) -> Floats:
    """Of each set, a row of medians of its samples drawn anew, as many, with repetition."""
    # A fixed seed: the same rows give the same interval, in every report.
    rng = np.random.default_rng(0)
    return np.stack([np.median(rng.choice(values, (NUM_RESAMPLES, values.size)), axis=1) for values in sets])


def _expanded_tails(size: int) -> Floats:
    """The two quantiles of a bootstrap that are as far apart as Student's interval of that many normal samples."""
    from scipy import stats

    quantile = math.sqrt(size / (size - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, size - 1)
    confidence = 1 - 2 * stats.norm.sf(quantile)
    return np.array([1 - confidence, 1 + confidence]) / 2


def _welch(sets: Sequence[Floats], weights: Sequence[float]) -> tuple[float, float]:
    from scipy import stats

    centre = sum(weight * values.mean() for weight, values in zip(weights, sets, strict=True))
    variances = np.array([w**2 * v.var(ddof=1) / v.size for w, v in zip(weights, sets, strict=True)])
    freedoms = np.array([values.size - 1 for values in sets])
    degrees = variances.sum() ** 2 / (variances**2 / freedoms).sum()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * math.sqrt(variances.sum())
    return float(centre - half), float(centre + half)


def median_of(samples: Sequence[float]) -> Contrast:
    """Median of a time with its interval, in the samples' unit; errors as of `logarithms`."""
    found, median = contrast([logarithms(samples)], [1.0]), float(np.median(samples))
    # Relative to the median, which the logarithm's round trip would move by its last digit.
    low, high = (None if end is None else median * math.exp(end - found.value) for end in (found.low, found.high))
    return Contrast(value=median, low=low, high=high)


def paired_difference(minuend: Sequence[float], subtrahend: Sequence[float]) -> Contrast:
    """Mean of the differences of figures that seeds pair: what a seed does to both of a pair cancels.

    The interval is Student's over the pairs. With three seeds it is wide, 2.5 times the differences' standard deviation
    to each side, and should be: a bootstrap of three values would hide it. A ValueError says if there are no pairs, or
    the numbers of figures differ.
    """
    if len(minuend) != len(subtrahend) or not len(minuend):
        raise ValueError(f"paired figures must be equally many, at least one; got {len(minuend)} and {len(subtrahend)}")
    differences = np.asarray(minuend, dtype=np.float64) - np.asarray(subtrahend, dtype=np.float64)
    mean = float(differences.mean())
    if differences.size < 2:
        return Contrast(value=mean, low=None, high=None)
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, differences.size - 1) * stats.sem(differences))
    return Contrast(value=mean, low=mean - half, high=mean + half)


def constant_relative_spread(relative_spreads: Sequence[float]) -> bool:
    """Whether rows' standard deviations over their means are all equal, as no clock ever gave them.

    Real times scatter differently in every cell: with twenty rounds a standard deviation is itself known to 16 % only.
    Fewer than four rows, or one without any spread, show nothing.
    """
    spreads = np.asarray(relative_spreads, dtype=np.float64)
    if len(spreads) < MIN_SPREADS or not np.all(spreads > 0):
        return False
    return bool(np.ptp(spreads) <= AGREEMENT * spreads.mean())


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Contrast:
    """Ratio of two times that were measured in the same rounds: the median of the rounds' own ratios.

    What slows a whole round down, slows both down, and cancels. Errors as of `logarithms`, and if the numbers differ.
    """
    above, below = logarithms(numerator), logarithms(denominator)
    if above.size != below.size:
        raise ValueError(f"paired samples must be equally many; got {above.size} and {below.size}")
    return _estimate(contrast([above - below], [1.0]), above, below)


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Contrast:
    """Ratio of the medians of two times of different rounds, or of different runs; errors as of `logarithms`."""
    above, below = logarithms(numerator), logarithms(denominator)
    return _estimate(contrast([above, below], [1.0, -1.0]), above, below)


def _estimate(difference: Contrast, above: Floats, below: Floats) -> Contrast:
    ratio = difference.exponential
    if min(above.size, below.size) < 2 or np.ptp(above) == np.ptp(below) == 0:
        return ratio
    from scipy import stats

    # From moments: SciPy's test on the samples warns of times that agree to the last digits.
    moments = [moment for x in (above, below) for moment in (x.mean(), x.std(ddof=1), x.size)]
    return dataclasses.replace(ratio, p_value=float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values such that, of all tests together, one in twenty sets errs at 0.05.

    The k-th smallest of m is multiplied by m - k + 1, made not to fall, and held to 1 (Holm 1979, A Simple
    Sequentially Rejective Multiple Test Procedure).
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def amdahl(share: float, ratio: float) -> float | None:
    """Amdahl's law: the time of a whole over what it was, once a part of that share takes `ratio` times as long.

    None for a share of 1 or more: timed apart, a part may take longer than the whole that holds it, and then there is
    nothing to predict from.
    """
    return 1 - share + share * ratio if share < 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossover:
    """The length from which on a ratio of times stays on the other side of 1.

    Attributes:
        length: Between measured lengths by a straight line of log ratio over log length; None: there is none.
        low, high: Its 95 % interval; None: beyond the measured lengths, or unknown for want of samples.
        faster_at: Where the numerator is the faster one.
    """

    length: float | None
    low: float | None
    high: float | None
    faster_at: FasterAt


def scaling_exponent(lengths: Sequence[int], samples: Sequence[Sequence[float]]) -> Contrast:
    """The power of the length with which a time grows: 1 linear, 2 quadratic.

    It is the slope of the least-squares line through the medians of each length's samples, log seconds over log length.
    A ValueError says if there are fewer than two lengths, two are equal, or a sample is not positive and finite.
    """
    positions = _positions(lengths)
    centred = positions - positions.mean()
    return contrast([logarithms(each) for each in samples], [float(x) for x in centred / (centred**2).sum()])


def crossover(
    lengths: Sequence[int],
    numerator_samples: Sequence[Sequence[float]],
    denominator_samples: Sequence[Sequence[float]],
) -> Crossover:
    """Where the ratio of two times passes 1 for good; the samples of each length are paired by their rounds.

    A ValueError says what `scaling_exponent` refuses, and if paired samples differ in number.
    """
    positions = _positions(lengths)
    order = np.argsort(positions)
    pairs = [(logarithms(a), logarithms(b)) for a, b in zip(numerator_samples, denominator_samples, strict=True)]
    if len(pairs) != len(lengths) or any(above.size != below.size for above, below in pairs):
        raise ValueError("paired samples must be equally many, for each of the lengths")
    ratios = [pairs[index][0] - pairs[index][1] for index in order]
    medians = np.array([np.median(ratio) for ratio in ratios])
    # What matters is the passing from above 1 to below; a ratio that rises is turned over.
    direction = 1.0 if medians[0] >= medians[-1] else -1.0
    crossing = float(_last_falls(positions[order], direction * medians[None])[0])
    low, high, size = -math.inf, math.inf, min(ratio.size for ratio in ratios)
    if size >= MIN_BOOTSTRAP_SAMPLES:
        crossings = _last_falls(positions[order], direction * _resampled_medians(ratios).T)
        # Between "before the first length" and "after the last" nothing can be interpolated.
        low, high = np.quantile(crossings, _expanded_tails(size), method="inverted_cdf")
    if math.isfinite(crossing):
        faster_at: FasterAt = "long lengths" if direction > 0 else "short lengths"
    else:
        faster_at = "every length" if (crossing < 0) == (direction > 0) else "no length"
    length, low_length, high_length = (math.exp(x) if math.isfinite(x) else None for x in (crossing, low, high))
    return Crossover(length=length, low=low_length, high=high_length, faster_at=faster_at)


def _positions(lengths: Sequence[int]) -> Floats:
    if len(lengths) < 2 or len(set(lengths)) < len(lengths):
        raise ValueError(f"lengths must be two different ones at least; got {list(lengths)}")
    return logarithms([float(length) for length in lengths])


def _last_falls(positions: Floats, medians: Floats) -> Floats:
    """For each row of medians, where it falls below 0 for the last time; -inf: from the start, inf: never."""
    above = medians > 0
    last = above.shape[1] - 1 - np.argmax(above[:, ::-1], axis=1)
    left = np.minimum(last, above.shape[1] - 2)
    rows = np.arange(len(medians))
    start, end = medians[rows, left], medians[rows, left + 1]
    fall = np.where(start > end, start - end, 1.0)
    inside = positions[left] + (positions[left + 1] - positions[left]) * start / fall
    return np.where(~above.any(axis=1), -np.inf, np.where(last == above.shape[1] - 1, np.inf, inside))
