"""What one set of timing samples says of a time."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eval.statistics.contrasts import contrast, logarithms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A time and how sure it is; in the samples' unit.

    Attributes:
        median: Of the samples.
        mean: Of the samples.
        interval_low: Lower end of the median's 95 % interval; None for a single sample, which has no spread.
        interval_high: Upper end.
        coefficient_of_variation: Standard deviation over mean; None for a single sample.
    """

    median: float
    mean: float
    interval_low: float | None
    interval_high: float | None
    coefficient_of_variation: float | None


def estimate(samples: Sequence[float]) -> Estimate:
    """Median, mean, interval and spread.

    Args:
        samples: Positive, at least one.

    Raises:
        ValueError: If there are no samples, or one is not positive and finite.
    """
    centre = contrast([logarithms(samples)], [1.0]).exponential
    values = np.asarray(samples, dtype=np.float64)
    median, mean = float(np.median(values)), float(values.mean())
    if centre.low is None or centre.high is None:
        return Estimate(median=median, mean=mean, interval_low=None, interval_high=None, coefficient_of_variation=None)
    return Estimate(
        median=median,
        mean=mean,
        # The logarithm's round trip moves the last digit: an interval never leaves its median out.
        interval_low=min(centre.low, median),
        interval_high=max(centre.high, median),
        coefficient_of_variation=float(values.std(ddof=1)) / mean,
    )
