"""Ratios of times with intervals, of the same rounds or not; how times grow with the length, and where two cross."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eval.statistics.intervals import (
    MIN_BOOTSTRAP_SAMPLES,
    NUM_RESAMPLES,
    Contrast,
    Floats,
    contrast,
    expanded_confidence,
    logarithms,
)

FasterAt = Literal["long lengths", "short lengths", "every length", "no length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioEstimate:
    """A ratio of times and how sure it is.

    Attributes:
        ratio: Median; below 1 the numerator is faster.
        low: Lower end of its 95 % interval; None for a single sample.
        high: Upper end.
        p_value: Welch's t-test on log seconds, not corrected; None where no sample differs from its fellows.
    """

    ratio: float
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def figure(self) -> Contrast:
        """The ratio without its test."""
        return Contrast(value=self.ratio, low=self.low, high=self.high)

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> RatioEstimate:
    """Ratio of two times that were measured in the same rounds: the median of the rounds' own ratios.

    What slows a whole round down, slows both down, and cancels.

    Raises:
        ValueError: If the numbers of samples differ, or one is not positive and finite.
    """
    above, below = logarithms(numerator), logarithms(denominator)
    if above.size != below.size:
        raise ValueError(f"paired samples must be equally many; got {above.size} and {below.size}")
    return _estimate(contrast([above - below], [1.0]), above, below)


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> RatioEstimate:
    """Ratio of the medians of two times of different rounds, or of different runs; errors as of `logarithms`."""
    above, below = logarithms(numerator), logarithms(denominator)
    return _estimate(contrast([above, below], [1.0, -1.0]), above, below)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values such that, of all tests together, one in twenty sets errs at 0.05.

    The k-th smallest of m is multiplied by m - k + 1, made not to fall, and held to 1 (Holm 1979, A Simple
    Sequentially Rejective Multiple Test Procedure).
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]


def _estimate(difference: Contrast, above: Floats, below: Floats) -> RatioEstimate:
    ratio, p_value = difference.exponential, math.nan
    if min(above.size, below.size) > 1 and (np.ptp(above) > 0 or np.ptp(below) > 0):
        # It takes longer to import than most of what a command does.
        from scipy import stats

        # From moments: SciPy's test on the samples warns of times that agree to the last digits.
        moments = [moment for x in (above, below) for moment in (x.mean(), x.std(ddof=1), x.size)]
        p_value = float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)
    known = None if math.isnan(p_value) else p_value
    return RatioEstimate(ratio=ratio.value, low=ratio.low, high=ratio.high, p_value=known)


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
        low: Lower end of the 95 % interval; None: below the shortest length, or unknown for want of samples.
        high: Upper end; None: beyond the longest length, or unknown for want of samples.
        faster_at: Where the numerator is the faster one.
    """

    length: float | None
    low: float | None
    high: float | None
    faster_at: FasterAt


def scaling_exponent(lengths: Sequence[int], samples: Sequence[Sequence[float]]) -> Contrast:
    """The power of the length with which a time grows: 1 linear, 2 quadratic.

    It is the slope of the least-squares line through the medians of each length's samples, log seconds over log length.

    Raises:
        ValueError: If there are fewer than two lengths, two are equal, or a sample is not positive and finite.
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

    Raises:
        ValueError: If there are fewer than two lengths, two are equal, paired samples differ in number, or one is not
            positive and finite.
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
    low, high = _interval(positions[order], [direction * ratio for ratio in ratios])
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


def _interval(positions: Floats, ratios: Sequence[Floats]) -> tuple[float, float]:
    size = min(ratio.size for ratio in ratios)
    if size < MIN_BOOTSTRAP_SAMPLES:
        return -math.inf, math.inf
    confidence = expanded_confidence(size)
    # Not SciPy's bootstrap: it has no way to order "before the first length" and "after the last" among numbers.
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(ratio, (NUM_RESAMPLES, ratio.size)), axis=1) for ratio in ratios]
    crossings = _last_falls(positions, np.stack(medians, axis=1))
    low, high = np.quantile(crossings, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


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
