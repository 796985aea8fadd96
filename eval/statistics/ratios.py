"""Ratios of times, with intervals: of the same rounds or not, and as Amdahl's law makes them of a part's."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from eval.statistics.intervals import Contrast, Floats, contrast, logarithms


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
    ratio = difference.exponential
    return RatioEstimate(ratio=ratio.value, low=ratio.low, high=ratio.high, p_value=_welch(above, below))


def _welch(above: Floats, below: Floats) -> float | None:
    if min(above.size, below.size) < 2 or (np.ptp(above) == 0 and np.ptp(below) == 0):
        return None
    # It takes longer to import than most of what a command does.
    from scipy import stats

    # From moments: SciPy's test on the samples warns of times that agree to the last digits.
    p_value = stats.ttest_ind_from_stats(
        above.mean(), above.std(ddof=1), above.size, below.mean(), below.std(ddof=1), below.size, equal_var=False
    ).pvalue
    return None if math.isnan(p_value) else float(p_value)


def amdahl(share: float, ratio: float) -> float | None:
    """Amdahl's law: the time of a whole over what it was, once a part of it takes `ratio` times as long.

    Args:
        share: Of the whole's time that the part took.
        ratio: Of the part's times, after over before.

    Returns:
        None for a share of 1 or more: timed apart, a part may take longer than the whole that holds it, and then there
        is nothing to predict from.
    """
    return 1 - share + share * ratio if share < 1 else None
