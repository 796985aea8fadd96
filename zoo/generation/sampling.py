"""The next token from the model's scores: mlx-lm's filters and penalties, with draws that only the seed decides.

Letters: B batch, V vocabulary.
"""

import hashlib
from collections.abc import Callable, Sequence

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors

from zoo.generation.config import GenerationConfig
from zoo.ops.exponential import normalised

# (tokens so far, scores [1, V]) -> scores [1, V], as mlx-lm has it.
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]

# In place of a token where the scores are no numbers. The host reads tokens a step late, so the model is asked for
# one more step; to it, this is the last token of the vocabulary.
NO_TOKEN = -1
# Temperatures and penalties beyond draw as these do, and float32 holds what these make of a score.
_SMALLEST, _LARGEST = 1e-30, 1e30
_LONGEST_SLICE = 2**31 - 1


class RowSampler:
    """Samples one row of a batch, token by token.

    Draw t of row r is a function of (seed, r, t) alone: neither other rows nor the caller's random numbers change
    it, and the caller's random state is left as it was.

    Attributes:
        step: Number of the next draw.
    """

    def __init__(self, config: GenerationConfig, *, vocab_size: int, row: int = 0) -> None:
        """Prepares the draws of row `row` over `vocab_size` tokens."""
        self._greedy = config.temperature == 0
        # mlx-lm refuses a top_k that keeps everything; to users it means just that.
        self._top_k = config.top_k if config.top_k < vocab_size else 0
        self._top_p, self._min_p = config.top_p, config.min_p
        self._temperature = _held(config.temperature)
        self._seed, self._row, self.step = config.seed, row, 0

    def warm_up(self, vocab_size: int) -> None:
        """Compiles the filters, so that no clock counts them as part of the first token; draws nothing of the row."""
        step = self.step
        mx.eval(self(mx.zeros((1, vocab_size))))
        self.step = step

    def __call__(self, logits_1V: mx.array) -> mx.array:
        """The next token, int32 [1], from logits [1, V]; `NO_TOKEN` if these are no numbers."""
        if self._greedy:
            # Which of them is the largest does not depend on their sum.
            return most_probable(logits_1V)
        # Half precision would draw from a handful of values.
        logprobs_1V = (logits_1V - normalised(logits_1V)[0]).astype(mx.float32)
        top_11 = mx.max(logprobs_1V, axis=-1, keepdims=True)
        # A filter that leaves nothing, such as the smallest top_p, leaves the most probable token.
        kept_1V = (self._filtered(logprobs_1V) > -mx.inf) | (logprobs_1V == top_11)
        scores_1V = mx.where(kept_1V, (logprobs_1V - top_11) * (1 / self._temperature), -mx.inf)
        key = mx.random.key(_draw_key(self._seed, self._row, self.step))
        self.step += 1
        return _or_no_token(mx.random.categorical(scores_1V, key=key), logprobs_1V)

    def _filtered(self, logprobs_1V: mx.array) -> mx.array:
        if self._top_p < 1:
            logprobs_1V = apply_top_p(logprobs_1V, self._top_p)
        if self._min_p > 0:
            logprobs_1V = apply_min_p(logprobs_1V, self._min_p)
        if self._top_k > 0:
            logprobs_1V = apply_top_k(logprobs_1V, self._top_k)
        return logprobs_1V


def most_probable(logits_BV: mx.array) -> mx.array:
    """The most probable tokens, int32 [B]; `NO_TOKEN` where the logits are no numbers, or the largest is infinite."""
    # A NaN anywhere is the largest.
    top_B = mx.max(logits_BV, axis=-1)
    return mx.where(mx.isnan(top_B) | mx.isinf(top_B), NO_TOKEN, mx.argmax(logits_BV, axis=-1).astype(mx.int32))


def _or_no_token(tokens_B: mx.array, logprobs_BV: mx.array) -> mx.array:
    return mx.where(mx.isnan(logprobs_BV).any(axis=-1), NO_TOKEN, tokens_B.astype(mx.int32))


def _held(factor: float) -> float:
    return min(max(factor, _SMALLEST), _LARGEST)


def _draw_key(seed: int, row: int, step: int) -> int:
    parts = b"".join(number.to_bytes(8, "little") for number in (seed, row, step))
    return int.from_bytes(hashlib.blake2b(parts, digest_size=8).digest(), "little")


def logits_processors(
    config: GenerationConfig, *, num_texts: int, vocab_size: int, before: Sequence[int] = ()
) -> list[LogitsProcessor]:
    """What changes the scores before sampling.

    Args:
        config: For its repetition penalty.
        num_texts: Tokens that the tokenizer can turn into text.
        vocab_size: V, which a model may have padded beyond those; tokens without text are never generated.
        before: Tokens that come before those that a processor is called with.
    """
    penalty = None if config.repetition_penalty == 1 else _held(config.repetition_penalty)
    context_size = min(config.repetition_context_size, _LONGEST_SLICE)
    result = make_logits_processors(repetition_penalty=penalty, repetition_context_size=context_size)
    if result:
        recent = mx.array(list(before[-context_size:]), dtype=mx.int32)
        result = [
            lambda tokens, logits_1V, penalise=each: penalise(
                mx.concatenate([recent, tokens]), logits_1V.astype(mx.float32)
            )
            for each in result
        ]
    if vocab_size > num_texts:
        has_text_V = mx.arange(vocab_size) < num_texts
        result.append(lambda _, logits_1V: mx.where(has_text_V, logits_1V, -mx.inf))
    return result
