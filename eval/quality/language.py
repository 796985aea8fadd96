"""How well a language model predicts held-out text: bits per byte, nats per token and perplexity.

    bits per byte = sum(nats) / (ln 2 · bytes)        perplexity = exp(sum(nats) / tokens)

The same sums over the same batches as `zoo.training.evaluation`, and so the same figures as in training. The
perplexity's standard error is that of the nats, carried over to first order.
"""

import math

from eval.quality.evaluated import Evaluated
from eval.quality.means import Mean, clustered_mean
from eval.quality.predictions import Predictions
from eval.quality.score import Score, score_of

# Of a double.
_LARGEST_EXPONENT = 709.0


def language(evaluated: Evaluated) -> list[Score]:
    """Figures of a language model over held-out text.

    Args:
        evaluated: With text.

    Returns:
        bits_per_byte first, then loss (nats per token) and perplexity.

    Raises:
        UserError: If the text is too short for one row.
    """
    predictions = evaluated.text_predictions
    loss = nats_per_token(predictions)
    count = num_targets(predictions)
    return [
        score_of("bits_per_byte", bits_per_byte(predictions), count=count),
        score_of("loss", loss, count=count),
        score_of("perplexity", _exponential(loss), count=count),
    ]


def bits_per_byte(predictions: Predictions) -> Mean:
    """Bits per UTF-8 byte of the targets, clustered by row."""
    return clustered_mean(predictions.nats_RL.sum(axis=1) / math.log(2), predictions.bytes_RL.sum(axis=1))


def nats_per_token(predictions: Predictions) -> Mean:
    """Nats per target, clustered by row."""
    return clustered_mean(predictions.nats_RL.sum(axis=1), predictions.weights_RL.sum(axis=1))


def num_targets(predictions: Predictions) -> int:
    """Number of tokens predicted."""
    return round(float(predictions.weights_RL.sum()))


def _exponential(mean: Mean) -> Mean:
    if mean.value is None:
        return mean
    value = math.inf if mean.value >= _LARGEST_EXPONENT else math.exp(mean.value)
    return Mean(value=value, standard_error=None if mean.standard_error is None else value * mean.standard_error)
