"""How well an encoder guesses hidden tokens of held-out text, always the same ones; or what texts are."""

from eval.quality.evaluated import Evaluated
from eval.quality.language import bits_per_byte, nats_per_token, num_targets
from eval.quality.means import clustered_mean
from eval.quality.score import Score, score_of


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
