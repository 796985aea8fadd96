"""How likely a text is to a language model, and an answer after its context, for exactly the answer's bytes.

    log p(answer | context) = sum_i log p(a_i | start, c, a_1 … a_{i-1}),    c = encode(context), a = encode(answer)

Context and answer are encoded apart. Encoded together, a token may hold the end of the one and the beginning of the
other, and no cut between tokens is the cut between the texts. Apart, the answer's tokens stand for the answer's bytes,
whatever the tokenizer; what a model would rather have written as one token costs it likelihood, the same for every
answer to a context. Before the context stands what stands before every text of the model: see `Tokenizer.start_id`.

Where context and answer are longer than the model, the context loses its beginning. Each token of an answer that is
itself longer is predicted once, from as many tokens before it as fit.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.data import Tokenizer
from zoo.training.loss import predicted_scores, token_nats


class Likelihood:
    """A causal model in evaluation mode, asked for the log-likelihood of texts, in nats."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        """Takes the model and its tokenizer."""
        self._model, self._tokenizer = model, tokenizer

    def of_answer(self, context: str, answer: str) -> tuple[float, bool]:
        """Log-likelihood of an answer after a context, and whether each of its tokens is the most probable one."""
        before = self._tokenizer.encode_prompt(context) or [self._tokenizer.start_id]
        return self._after(before, self._tokenizer.encode(answer))

    def of_text(self, text: str) -> float:
        """Log-likelihood of a whole text."""
        return self._after([self._tokenizer.start_id], self._tokenizer.encode(text))[0]

    def _after(self, before: Sequence[int], predicted: Sequence[int]) -> tuple[float, bool]:
        ids = [*before, *predicted]
        total, greedy = 0.0, True
        for start, first, end in windows(len(before), len(ids), limit=self._model.config.max_seq_len):
            picks_P = mx.arange(first - 1 - start, end - 1 - start)
            batch = {"inputs_BL": mx.array([ids[start : end - 1]]), "picks_P": picks_P}
            targets_P = mx.array(ids[first:end])
            logits_PV = predicted_scores(self._model, batch, causal=True)
            nats_P, right_P = token_nats(logits_PV, targets_P), mx.argmax(logits_PV, axis=-1) == targets_P
            mx.eval(nats_P, right_P)
            total -= float(np.array(nats_P, dtype=np.float64).sum())
            greedy = greedy and bool(np.array(right_P).all())
        return total, greedy


def windows(num_before: int, num_tokens: int, *, limit: int) -> Iterator[tuple[int, int, int]]:
    """Cuts a text into what a model reads at a time, so that each predicted token is predicted once.

    Args:
        num_before: Tokens that are not predicted, at least 1; they come first.
        num_tokens: All tokens.
        limit: Most tokens that the model reads at a time.

    Yields:
        start, first, end: the tokens from `first` to before `end` are predicted from those from `start` on.
    """
    for first in range(num_before, num_tokens, limit):
        end = min(first + limit, num_tokens)
        yield max(0, end - 1 - limit), first, end
