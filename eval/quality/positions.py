"""Loss by position in the context: what more context is worth to a model.

Bins double in width, [0, 1), [1, 2), [2, 4), [4, 8), …: context matters most where there is little of it. Position 0
is the target after the first token of a row. Weighted by their counts, the bins' losses average to the loss over all;
weighted by the bytes of their targets, their bits per byte to those over all. Where all targets of a bin are ends of
documents there are no bytes, and its nats are in the loss alone.
"""

import math

from eval.quality.evaluated import Evaluated
from eval.quality.language import bits_per_byte, num_targets
from eval.quality.means import clustered_mean
from eval.quality.score import Score, score_of


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
