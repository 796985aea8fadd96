"""Figures with their intervals: weighted sums of medians of logarithms, which medians, ratios and slopes all are.

Times are positive, skewed to the right, and now and then several times too long (another process had the core), so
that medians of logarithms serve better than means. The interval is SciPy's percentile bootstrap, widened for small
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# The ends move by less than a tenth of the interval's width from seed to seed, at about two milliseconds a call.
NUM_RESAMPLES = 2000
MIN_BOOTSTRAP_SAMPLES = 5
# Four spreads that agree within one part in a hundred by chance: less than one in ten thousand.
MIN_SPREADS, AGREEMENT = 4, 0.01

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """A figure that compares sets of samples: a weighted sum of their medians, or a mean of differences.

    Attributes:
        value: The figure.
        low: Lower end of its 95 % interval; None where a set has a single sample.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def exponential(self) -> "Contrast":
        """The same, taken back from logarithms."""
        low, high = (None if end is None else math.exp(end) for end in (self.low, self.high))
        return Contrast(value=math.exp(self.value), low=low, high=high)


def logarithms(samples: Sequence[float]) -> Floats:
    """Natural logarithms of times.

    Raises:
        ValueError: If there are no samples, or one is not positive and finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"samples must be positive, finite and at least one; got {list(samples)}")
    return np.log(values)


def expanded_confidence(size: int) -> float:
    """The level at which a percentile interval is as wide as Student's, of that many normal samples."""
    # It takes longer to import than most of what a command does.
    from scipy import stats

    quantile = math.sqrt(size / (size - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, size - 1)
    return float(1 - 2 * stats.norm.sf(quantile))


def contrast(sets: Sequence[Floats], weights: Sequence[float]) -> Contrast:
    """Sum over the sets of weight times median; the sets are independent of each other, and none is empty."""
    factors = np.asarray(weights, dtype=np.float64)
    value = float(sum(weight * np.median(values) for weight, values in zip(factors, sets, strict=True)))
    sizes = [values.size for values in sets]
    if min(sizes) < 2:
        return Contrast(value=value, low=None, high=None)
    if all(np.ptp(values) == 0 for values in sets):
        return Contrast(value=value, low=value, high=value)
    low, high = _bootstrap(sets, factors) if min(sizes) >= MIN_BOOTSTRAP_SAMPLES else _welch(sets, factors)
    return Contrast(value=value, low=min(low, value), high=max(high, value))


def _bootstrap(sets: Sequence[Floats], weights: Floats) -> tuple[float, float]:
    from scipy import stats

    def weighted_medians(*drawn: Floats, axis: int) -> Any:
        return sum(weight * np.median(values, axis=axis) for weight, values in zip(weights, drawn, strict=True))

    # A fixed seed: the same rows give the same interval, in every report.
    result = stats.bootstrap(
        tuple(sets),
        weighted_medians,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=expanded_confidence(min(values.size for values in sets)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _welch(sets: Sequence[Floats], weights: Floats) -> tuple[float, float]:
    from scipy import stats

    centre = sum(weight * values.mean() for weight, values in zip(weights, sets, strict=True))
    variances = np.array([w**2 * v.var(ddof=1) / v.size for w, v in zip(weights, sets, strict=True)])
    freedoms = np.array([values.size - 1 for values in sets])
    degrees = variances.sum() ** 2 / (variances**2 / freedoms).sum()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * math.sqrt(variances.sum())
    return float(centre - half), float(centre + half)


def median_of(samples: Sequence[float]) -> Contrast:
    """Median of a time with its interval, in the samples' unit; errors as of `logarithms`."""
    found = contrast([logarithms(samples)], [1.0]).exponential
    median = float(np.median(samples))
    if found.low is None or found.high is None:
        return Contrast(value=median, low=None, high=None)
    # The logarithm's round trip moves the last digit: an interval never leaves its median out.
    return Contrast(value=median, low=min(found.low, median), high=max(found.high, median))


def paired_difference(minuend: Sequence[float], subtrahend: Sequence[float]) -> Contrast:
    """Mean of the differences of figures that seeds pair: what a seed does to both of a pair cancels.

    The interval is Student's over the pairs. With three seeds it is wide, 2.5 times the differences' standard deviation
    to each side, and should be: a bootstrap of three values would hide it.

    Raises:
        ValueError: If there are no pairs, or the numbers of figures differ.
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
