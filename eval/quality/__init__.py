"""What a trained model knows and can recall; here the figures of a task, and means with their errors.

    bits per byte = sum(nats) / (ln 2 · bytes)        perplexity = exp(sum(nats) / tokens)

These are the sums of `zoo.training.evaluation`: over the same batches, the figures of training. The tokens of a row
depend on each other, rows do not. With n rows, row r adding a sum s_r and a weight w_r, and m = sum(s_r) / sum(w_r):

    SE(m)² = n / (n - 1) · sum((s_r - m w_r)²) / sum(w_r)²

The linearised variance of a ratio under cluster sampling (Cochran, "Sampling Techniques", 1977, chapters 2 and 9A). A
row may add to the sum alone, as one whose only target is a document's end adds nats but no bytes. The perplexity's
error is that of the nats, carried over to first order.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from zoo.training.predictions import Predictions

# Of a double.
_LARGEST_EXPONENT = 709.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One figure of a task under one setting, before it is known whose it is.

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


class Mean(NamedTuple):
    """A weighted mean over rows, None if all weights are 0, and its error, None for fewer than two rows."""

    value: float | None
    standard_error: float | None


def clustered_mean(sums_R: np.ndarray, weights_R: np.ndarray) -> Mean:
    """The mean of what rows add up to, and how sure it is.

    Args:
        sums_R: Sum of each row.
        weights_R: What each row's sum is over, at least 0. A row of weight 0 counts with its sum; one that adds to
            neither is no row.
    """
    rows = (weights_R > 0) | (sums_R != 0)
    sums, weights = sums_R[rows].astype(np.float64), weights_R[rows].astype(np.float64)
    count, total = len(weights), float(weights.sum())
    value = float(sums.sum()) / total if total else None
    if value is None or count == 1:
        return Mean(value, None)
    residuals = sums - value * weights
    variance = count / (count - 1) * float(residuals @ residuals) / total**2
    return Mean(value, math.sqrt(variance))


def score_of(metric: str, mean: Mean, *, count: float, **where: Any) -> Score:
    """The score that a mean over `count` tokens or examples is; one that is no finite number says so instead.

    `where` is the setting, by the fields of `Score`.
    """
    own = {"metric": metric, "count": round(count), **where}
    if mean.value is not None and math.isfinite(mean.value):
        return Score(value=mean.value, standard_error=mean.standard_error, **own)
    nothing = "its targets stand for no bytes" if own["count"] else "nothing was counted"
    why = nothing if mean.value is None else f"it is {mean.value}"
    return Score(skipped=f"{metric} must be a finite number; {why}", **own)


def scores_of(predictions: Predictions, *metrics: str, **where: Any) -> list[Score]:
    """The figures of these metrics, in their order; `where` is the setting, as `score_of` takes it."""
    of_rows = {name: array_RL.sum(axis=1) for name, array_RL in vars(predictions).items()}
    loss = clustered_mean(of_rows["nats_RL"], of_rows["weights_RL"])
    means = {
        "loss": loss,
        "perplexity": _exponential(loss),
        "bits_per_byte": clustered_mean(of_rows["nats_RL"] / math.log(2), of_rows["bytes_RL"]),
        "accuracy": clustered_mean(of_rows["correct_RL"], of_rows["weights_RL"]),
    }
    return [score_of(metric, means[metric], count=predictions.weights_RL.sum(), **where) for metric in metrics]


def _exponential(mean: Mean) -> Mean:
    if mean.value is None:
        return mean
    value = math.inf if mean.value >= _LARGEST_EXPONENT else math.exp(mean.value)
    return Mean(value, None if mean.standard_error is None else value * mean.standard_error)
