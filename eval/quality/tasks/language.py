"""How well a model predicts held-out text: the next token, hidden ones, or labels.

By position in the context, bins double in width, [0, 1), [1, 2), [2, 4), [4, 8), …: context matters most where there
is little of it. Position 0 is the target after the first token of a row. Weighted by their counts, the bins' losses
average to the loss over all; weighted by the bytes of their targets, their bits per byte to those over all. Where all
targets of a bin are ends of documents there are no bytes, and its nats are in the loss alone.

Beyond the length seen in training it is the same amount of text at each length. Learned positions end at max_seq_len:
longer rows are skipped, not tried.
"""

from collections.abc import Callable

from eval.quality import Score, scores_of
from eval.quality.tasks import LANGUAGE_MODEL, RUNNING_TEXT, TEXT, Evaluated, Need, QualityTask
from zoo.data import ExampleData, TextData

_FACTORS = (4, 2, 1)


def held_out(*metrics: str) -> Callable[[Evaluated], list[Score]]:
    """These figures over the held-out text: loss is in nats per token or text, accuracy that of the first guess."""
    return lambda evaluated: scores_of(evaluated.text_predictions, *metrics)


def positions(evaluated: Evaluated) -> list[Score]:
    """Of a language model: bits_per_byte over all first; then loss (nats per token) and bits_per_byte of each bin."""
    predictions = evaluated.text_predictions
    scores = scores_of(predictions, "bits_per_byte")
    for start, end in bins(evaluated.sequence_length):
        scores += scores_of(predictions.between(start, end), "loss", "bits_per_byte", position=start)
    return scores


def bins(length: int) -> list[tuple[int, int]]:
    """First position and the one after the last of each bin of a row."""
    starts = [0, *(2**power for power in range(length.bit_length()) if 2**power < length)]
    return list(zip(starts, [*starts[1:], length], strict=True))


def extrapolation(evaluated: Evaluated) -> list[Score]:
    """Of a language model: bits_per_byte at 4, 2 and 1 times the trained length, the longest first.

    Behind these stand the lengths that the model cannot process or that no text fills, each with the reason.
    """
    assert isinstance(evaluated.data, TextData), "the task asks for running text"
    tokens = len(evaluated.data.corpus.validation.tokens_T) - 1
    scores, skipped = [], []
    for factor in _FACTORS:
        length = factor * evaluated.sequence_length
        reason = evaluated.too_long(length)
        if reason is None and factor > 1 and tokens < length:
            reason = f"the held-out text has {tokens} tokens, fewer than {length}"
        if reason is not None:
            skipped.append(Score(metric="bits_per_byte", length=length, skipped=reason))
        elif factor > 1:
            longer = evaluated.predictor()(evaluated.text_batches(shrink=factor))
            scores += scores_of(longer, "bits_per_byte", length=length)
        else:
            scores += scores_of(evaluated.text_predictions, "bits_per_byte", length=length)
    return [*scores, *skipped]


language = held_out("bits_per_byte", "loss", "perplexity")
masked = held_out("accuracy", "loss", "bits_per_byte")
_HIDDEN = "it asks for hidden tokens; "
_ENCODER = (
    *TEXT,
    Need(lambda it: not it.model.config.causal, _HIDDEN + "a {family} model reads left to right"),
    Need(lambda it: it.model.config.masked_token_head, _HIDDEN + "this encoder has no masked-token head"),
)
_CLASSIFIER = Need(
    lambda it: isinstance(it.data, ExampleData) and bool(it.data.classes),
    "it asks what texts are, a classifier and about texts with labels",
)
TASKS = (
    QualityTask(name="language", needs=LANGUAGE_MODEL, measure=language),
    QualityTask(name="positions", needs=RUNNING_TEXT, measure=positions),
    QualityTask(name="extrapolation", needs=RUNNING_TEXT, measure=extrapolation),
    QualityTask(name="masked", needs=_ENCODER, measure=masked),
    QualityTask(name="classification", needs=(_CLASSIFIER,), measure=held_out("accuracy", "loss")),
)
