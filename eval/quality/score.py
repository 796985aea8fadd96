"""A score: one figure of a task under one setting, before it is known whose it is; and means with honest errors.

The tokens of one row depend on each other, rows do not. With n rows, row r adding the sum s_r and the weight w_r, and
m = sum(s_r) / sum(w_r):

    SE(m)² = n / (n - 1) · sum((s_r - m w_r)²) / sum(w_r)²

The linearised variance of a ratio under cluster sampling (Cochran, "Sampling Techniques", 1977, chapters 2 and 9A). A
row may add to the sum alone, as one whose only target is a document's end adds nats but no bytes.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One figure.

    Attributes:
        metric: What it is, for example bits_per_byte.
        value: The figure; None if there is none.
        standard_error: Of the value, or None where it is unknown.
        count: What the value is an average of: tokens or examples.
        length: Tokens of the context, where the task varies it.
        num_pairs: Pairs to remember, where the task varies them.
        depth: Where in the context the answer lies, from 0 to 1, where the task varies it.
        position: First position of the bin, where figures go by position.
        surgery: What exchanging the attention did, as JSON, where the figure is of that.
        skipped: Why there is no value; None if there is one.
    """

    metric: str
    value: float | None = None
    standard_error: float | None = None
    count: int | None = None
    length: int | None = None
    num_pairs: int | None = None
    depth: float | None = None
    position: int | None = None
    surgery: str | None = None
    skipped: str | None = None


def score_of(metric: str, mean: Mean, *, count: int, length: int | None = None, position: int | None = None) -> Score:
    """The score that a mean over `count` tokens is; one that is no finite number says so instead of a value."""
    finite = mean.value is not None and math.isfinite(mean.value)
    nothing = "its targets stand for no bytes" if count else "nothing was counted"
    why = nothing if mean.value is None else f"it is {mean.value}"
    return Score(
        metric=metric,
        value=mean.value if finite else None,
        standard_error=mean.standard_error if finite else None,
        count=count,
        length=length,
        position=position,
        skipped=None if finite else f"{metric} must be a finite number; {why}",
    )


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
