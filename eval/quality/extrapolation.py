"""Length extrapolation: bits per byte in rows longer than any seen in training.

The same amount of text at each length. Learned positions end at max_seq_len: longer rows are skipped, not tried.
"""

from eval.quality.evaluated import Evaluated
from eval.quality.language import bits_per_byte, num_targets
from eval.quality.score import Score, score_of

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
