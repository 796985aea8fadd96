"""How well a model predicts held-out text: a language model the next token, an encoder hidden ones.

    bits per byte = sum(nats) / (ln 2 · bytes)        perplexity = exp(sum(nats) / tokens)

The same sums over the same batches as `zoo.training.evaluation`, and so the same figures as in training. The
perplexity's standard error is that of the nats, carried over to first order.

By position in the context, bins double in width, [0, 1), [1, 2), [2, 4), [4, 8), …: context matters most where there
is little of it. Position 0 is the target after the first token of a row. Weighted by their counts, the bins' losses
average to the loss over all; weighted by the bytes of their targets, their bits per byte to those over all. Where all
targets of a bin are ends of documents there are no bytes, and its nats are in the loss alone.

Beyond the length seen in training it is the same amount of text at each length. Learned positions end at max_seq_len:
longer rows are skipped, not tried.
"""

import math

from eval.quality.evaluated import Evaluated
from eval.quality.predictions import Predictions
from eval.quality.score import Mean, Score, clustered_mean, score_of

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


def masked(evaluated: Evaluated) -> list[Score]:
    """Figures of an encoder over held-out text.

    Args:
        evaluated: With text.

    Returns:
        accuracy first (the most probable token is the hidden one), then loss (nats per hidden token) and
        bits_per_byte of the hidden tokens.

    Raises:
        UserError: If the text is too short for one row, or the tokenizer has no mask token.
    """
    predictions = evaluated.text_predictions
    accuracy = clustered_mean(predictions.correct_RL.sum(axis=1), predictions.weights_RL.sum(axis=1))
    count = num_targets(predictions)
    return [
        score_of("accuracy", accuracy, count=count),
        score_of("loss", nats_per_token(predictions), count=count),
        score_of("bits_per_byte", bits_per_byte(predictions), count=count),
    ]


def classification(evaluated: Evaluated) -> list[Score]:
    """Figures of a classifier over held-out texts.

    Args:
        evaluated: With texts that have labels.

    Returns:
        accuracy first (the most probable class is the text's own), then loss (nats per text).
    """
    predictions = evaluated.text_predictions
    accuracy = clustered_mean(predictions.correct_RL.sum(axis=1), predictions.weights_RL.sum(axis=1))
    count = num_targets(predictions)
    return [score_of("accuracy", accuracy, count=count), score_of("loss", nats_per_token(predictions), count=count)]


def positions(evaluated: Evaluated) -> list[Score]:
    """Figures by position.

    Args:
        evaluated: A language model with text.

    Returns:
        bits_per_byte over all first; then, for each bin, loss (nats per token) and bits_per_byte.

    Raises:
        UserError: If the text is too short for one row.
    """
    predictions = evaluated.text_predictions
    scores = [score_of("bits_per_byte", bits_per_byte(predictions), count=num_targets(predictions))]
    for start, end in bins(evaluated.sequence_length):
        nats_R = predictions.nats_RL[:, start:end].sum(axis=1)
        weights_R = predictions.weights_RL[:, start:end].sum(axis=1)
        bytes_R = predictions.bytes_RL[:, start:end].sum(axis=1)
        count = round(float(weights_R.sum()))
        means = {
            "loss": clustered_mean(nats_R, weights_R),
            "bits_per_byte": clustered_mean(nats_R / math.log(2), bytes_R),
        }
        scores += [score_of(metric, mean, count=count, position=start) for metric, mean in means.items()]
    return scores


def bins(length: int) -> list[tuple[int, int]]:
    """First position and the one after the last of each bin of a row."""
    starts = [0, *(2**power for power in range(length.bit_length()) if 2**power < length)]
    return list(zip(starts, [*starts[1:], length], strict=True))


FACTORS = (4, 2, 1)


def extrapolation(evaluated: Evaluated) -> list[Score]:
    """Figures by length.

    Args:
        evaluated: A language model with text.

    Returns:
        bits_per_byte at 4, 2 and 1 times the trained length, the longest first; then those lengths that the model
        cannot process or that no text fills, each with the reason.

    Raises:
        UserError: If the text is too short for one row of the trained length.
    """
    scores = [_at(evaluated, factor) for factor in FACTORS]
    return sorted(scores, key=lambda score: score.skipped is not None)


def _at(evaluated: Evaluated, factor: int) -> Score:
    length = factor * evaluated.sequence_length
    if evaluated.too_long(length):
        limit = evaluated.model.config.position_limit
        reason = f"learned positions end at max_seq_len {limit}, before {length} tokens"
        return Score(metric="bits_per_byte", length=length, skipped=reason)
    if factor > 1 and evaluated.text is not None and (tokens := len(evaluated.text.split.tokens_T) - 1) < length:
        reason = f"the held-out text has {tokens} tokens, fewer than {length}"
        return Score(metric="bits_per_byte", length=length, skipped=reason)
    if factor == 1:
        predictions = evaluated.text_predictions
    else:
        predictions = evaluated.predictor().all(evaluated.text_batches(shrink=factor))
    return score_of("bits_per_byte", bits_per_byte(predictions), count=num_targets(predictions), length=length)
