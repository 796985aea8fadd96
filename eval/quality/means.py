"""Means of tokens with honest standard errors: the tokens of one row depend on each other, rows do not.

With n rows, row r adding the sum s_r and the weight w_r, and m = sum(s_r) / sum(w_r):

    SE(m)² = n / (n - 1) · sum((s_r - m w_r)²) / sum(w_r)²

The linearised variance of a ratio under cluster sampling (Cochran, "Sampling Techniques", 1977, chapters 2 and 9A).
A row may add to the sum alone, as one whose only target is a document's end adds nats but no bytes.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A weighted mean over rows.

    Attributes:
        value: The mean; None if all weights are 0.
        standard_error: Clustered by row; None for fewer than two rows.
    """

    value: float | None
    standard_error: float | None


def clustered_mean(sums_R: np.ndarray, weights_R: np.ndarray) -> Mean:
    """The mean of what rows add up to, and how sure it is.

    Args:
        sums_R: Sum of each row.
        weights_R: What each row's sum is over, at least 0. A row of weight 0 counts with its sum; one that adds to
            neither is no row.

    Returns:
        The mean and its standard error.
    """
    rows = (weights_R > 0) | (sums_R != 0)
    sums, weights = sums_R[rows].astype(np.float64), weights_R[rows].astype(np.float64)
    count, total = len(weights), float(weights.sum())
    if total == 0:
        return Mean(value=None, standard_error=None)
    value = float(sums.sum()) / total
    if count == 1:
        return Mean(value=value, standard_error=None)
    residuals = sums - value * weights
    variance = count / (count - 1) * float(residuals @ residuals) / total**2
    return Mean(value=value, standard_error=math.sqrt(variance))
