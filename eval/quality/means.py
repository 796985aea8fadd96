"""Means of tokens with honest standard errors: the tokens of one row depend on each other, rows do not.

With n rows, row r adding the sum s_r over its weight w_r, and m = sum(s_r) / sum(w_r):

    SE(m)² = n / (n - 1) · sum((s_r - m w_r)²) / sum(w_r)²

The linearised variance of a ratio under cluster sampling (Cochran, "Sampling Techniques", 1977, chapters 2 and 9A).
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A weighted mean over rows.

    Attributes:
        value: The mean; None if nothing was counted.
        standard_error: Clustered by row; None for fewer than two rows.
    """

    value: float | None
    standard_error: float | None


def clustered_mean(sums_R: np.ndarray, weights_R: np.ndarray) -> Mean:
    """The mean of what rows add up to, and how sure it is.

    Args:
        sums_R: Sum of each row.
        weights_R: What each row's sum is over, at least 0; a row of weight 0 is no row.

    Returns:
        The mean and its standard error.
    """
    kept = weights_R > 0
    sums, weights = sums_R[kept].astype(np.float64), weights_R[kept].astype(np.float64)
    count = len(weights)
    if count == 0:
        return Mean(value=None, standard_error=None)
    total = float(weights.sum())
    value = float(sums.sum()) / total
    if count == 1:
        return Mean(value=value, standard_error=None)
    residuals = sums - value * weights
    variance = count / (count - 1) * float(residuals @ residuals) / total**2
    return Mean(value=value, standard_error=math.sqrt(variance))
