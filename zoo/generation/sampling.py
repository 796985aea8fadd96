"""The next token from the model's scores: mlx-lm's samplers and penalties, with draws that only the seed decides.

Letters: B batch, V vocabulary.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from zoo.generation.config import GenerationConfig

# (tokens so far, scores [1, V]) -> scores [1, V], as mlx-lm has it.
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]


class RowSampler:
    """Samples one row of a batch, token by token; an mlx-lm sampler.

    Draw t of row r is a function of (seed, r, t) alone: neither other rows nor the caller's random numbers change
    it, and the caller's random state is left as it was.
    """

    def __init__(self, config: GenerationConfig, *, vocab_size: int, row: int = 0) -> None:
        """Prepares the draws of row `row` over `vocab_size` tokens."""
        # mlx-lm refuses a top_k that keeps everything; to users it means just that.
        top_k = config.top_k if config.top_k < vocab_size else 0
        self._sample = make_sampler(temp=config.temperature, top_p=config.top_p, min_p=config.min_p, top_k=top_k)
        self._greedy = config.temperature == 0
        self._seed, self._row, self._step = config.seed, row, 0

    def warm_up(self, vocab_size: int) -> None:
        """Compiles the sampler, so that no clock counts it as part of the first token; draws nothing of the row."""
        step = self._step
        mx.eval(self(mx.zeros((1, vocab_size))))
        self._step = step

    def __call__(self, logprobs_1V: mx.array) -> mx.array:
        """The next token, int [1], from log-probabilities [1, V]."""
        if self._greedy:
            return self._sample(logprobs_1V)
        high, low = _random_key()
        mx.random.seed(_draw_key(self._seed, self._row, self._step))
        token_1 = self._sample(logprobs_1V)
        mx.random.seed((high << 32) | low)
        self._step += 1
        return token_1


def _random_key() -> list[int]:
    state: Any = mx.random.state
    return state[0].tolist()


def _draw_key(seed: int, row: int, step: int) -> int:
    parts = b"".join(number.to_bytes(8, "little") for number in (seed, row, step))
    return int.from_bytes(hashlib.blake2b(parts, digest_size=8).digest(), "little")


def logits_processors(config: GenerationConfig, *, num_texts: int, vocab_size: int) -> list[LogitsProcessor]:
    """What changes the scores before sampling.

    Args:
        config: For its repetition penalty.
        num_texts: Tokens that the tokenizer can turn into text.
        vocab_size: V, which a model may have padded beyond those; tokens without text are never generated.
    """
    penalty = None if config.repetition_penalty == 1 else config.repetition_penalty
    result = make_logits_processors(repetition_penalty=penalty, repetition_context_size=config.repetition_context_size)
    if vocab_size > num_texts:
        has_text_V = mx.arange(vocab_size) < num_texts
        result.append(lambda _, logits_1V: mx.where(has_text_V, logits_1V, -mx.inf))
    return result
