"""Continuing several prompts of different lengths in one batch.

Each prompt is processed by itself, so that no row carries padding; then the caches are merged and all rows decode
together, each at its own position. Rows that have ended leave the batch.

Letters: B batch, V vocabulary.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.generation.config import GenerationConfig
from zoo.generation.context import STEPS_PER_CLEARING
from zoo.generation.model import LanguageModel, evaluating, require_language_model
from zoo.generation.prompt import prompt_ids, reads_whole
from zoo.generation.result import GenerationResult, TextPiece
from zoo.generation.row import Row
from zoo.generation.sampling import RowSampler, logits_processors, most_probable
from zoo.layers.caches import merge_rows


def stream_batch(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    config: GenerationConfig,
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator[TextPiece, None, None]:
    """Continues several prompts together.

    Greedy text equals that of each prompt by itself. A sampled row depends on the seed and the row's number, not on
    the other rows.

    Args:
        model: A language model.
        tokenizer: Its tokenizer.
        prompts: Texts, possibly empty, or tokens; at least one prompt.
        config: How to sample and when to end, for every row.
        interrupted: Asked after each step and each chunk of a prompt; all texts end where it says true.

    Yields:
        Pieces of text as they come, those of one step in the order of the rows; the last one of a row carries its
        result.

    Raises:
        UserError: If there is no prompt, the model cannot generate, cannot continue one of them, or gives scores that
            are no numbers.
    """
    require_language_model(model)
    if not prompts:
        raise UserError("prompts must hold at least one text; got []")
    every_ids = [prompt_ids(prompt, model=model, tokenizer=tokenizer) for prompt in prompts]
    rows = [
        Row(index, ids, config, tokenizer=tokenizer, max_seq_len=model.config.position_limit)
        for index, ids in enumerate(every_ids)
    ]
    with evaluating(model):
        read = _prefill_all(model, rows, config.prefill_step_size, interrupted)
        if read is None:
            yield from (row.cut_short(cache_bytes=0) for row in rows)
            return
        logits_BV, cache = read
        choose = _Chooser(rows, config, vocab_size=model.config.vocab_size, num_texts=tokenizer.vocab_size)
        yield from _decode(model, rows, logits_BV, cache, choose, interrupted)


def generate_batch(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]], config: GenerationConfig
) -> list[GenerationResult]:
    """Continues several prompts and returns their results in order; arguments and errors as in `stream_batch`."""
    pieces = stream_batch(model, tokenizer, prompts, config)
    results = {piece.row: piece.result for piece in pieces if piece.result is not None}
    return [results[row] for row in range(len(prompts))]


def _prefill_all(
    model: LanguageModel, rows: Sequence[Row], step_size: int, interrupted: Callable[[], bool]
) -> tuple[mx.array, list[Any]] | None:
    """Processes the prompts one by one; returns their last logits [B, V] and the merged cache of each layer.

    Returns None if it was interrupted.
    """
    logits, caches = [], []
    for row in rows:
        cache = model.make_cache()
        row.start()
        logits_1V = _prefill(model, row.prompt_ids, cache, step_size, interrupted)
        if logits_1V is None:
            return None
        logits.append(logits_1V)
        row.prefilled()
        caches.append(cache)
    return mx.concatenate(logits), [merge_rows(layers) for layers in zip(*caches, strict=True)]


def _prefill(
    model: LanguageModel, ids: Sequence[int], cache: list[Any], step_size: int, interrupted: Callable[[], bool]
) -> mx.array | None:
    """Processes one prompt in chunks, its last token by itself as a `Context` does; returns logits [1, V].

    Returns None if it was interrupted.
    """
    tokens = mx.array(list(ids), dtype=mx.int32)[None]
    last = 0 if reads_whole(model.config, len(ids)) else len(ids) - 1
    for start in range(0, last, step_size):
        if interrupted():
            return None
        model(tokens[:, start : min(last, start + step_size)], cache=cache)
        mx.eval([layer.state for layer in cache])
        mx.clear_cache()
    logits_1V = model(tokens[:, last:], cache=cache)[:, -1]
    mx.eval(logits_1V, [layer.state for layer in cache])
    return logits_1V


class _Chooser:
    """Chooses the next token of each row, by the row's own sampler and its own recent tokens."""

    def __init__(self, rows: Sequence[Row], config: GenerationConfig, *, vocab_size: int, num_texts: int) -> None:
        """Begins with the prompts; of `vocab_size` tokens the first `num_texts` have a text."""
        self._processors = logits_processors(config, num_texts=num_texts, vocab_size=vocab_size)
        self._context_size = config.repetition_context_size
        self._together = config.temperature == 0 and not self._processors
        self._samplers = [RowSampler(config, vocab_size=vocab_size, row=row.index) for row in rows]
        self._recent = [mx.array(list(row.prompt_ids[-self._context_size :]), dtype=mx.int32) for row in rows]

    def __call__(self, logits_BV: mx.array) -> mx.array:
        """The next tokens, int32 [B]."""
        if self._together:
            return most_probable(logits_BV)
        return mx.concatenate([self._choose(row, logits_BV[row : row + 1]) for row in range(len(self._samplers))])

    def _choose(self, row: int, logits_1V: mx.array) -> mx.array:
        for processor in self._processors:
            logits_1V = processor(self._recent[row], logits_1V)
        token_1 = self._samplers[row](logits_1V)
        if self._processors:
            self._recent[row] = mx.concatenate([self._recent[row], token_1])[-self._context_size :]
        return token_1

    def filter(self, keep: list[int]) -> None:
        """Keeps only these rows."""
        self._samplers = [self._samplers[row] for row in keep]
        self._recent = [self._recent[row] for row in keep]


def _on_host(tokens_B: mx.array) -> list[int]:
    return np.array(tokens_B).tolist()


def _decode(
    model: LanguageModel,
    rows: list[Row],
    logits_BV: mx.array,
    cache: list[Any],
    choose: _Chooser,
    interrupted: Callable[[], bool],
) -> Generator[TextPiece, None, None]:
    tokens_B = choose(logits_BV)
    mx.async_eval(tokens_B)
    for step in itertools.count(1):
        # The next step is under way before the host reads this one's tokens, unless it is known that none follows.
        if not all(row.at_limit for row in rows):
            next_B = choose(model(tokens_B[:, None], cache=cache)[:, -1])
            mx.async_eval(next_B, [layer.state for layer in cache])
        count = len(rows)
        share_bytes = sum(layer.nbytes for layer in cache) // count
        last = interrupted()
        for row, token in zip(rows, _on_host(tokens_B), strict=True):
            yield row.add(token, cache_bytes=share_bytes, interrupted=last)
        keep = [index for index, row in enumerate(rows) if not row.ended]
        rows = [rows[index] for index in keep]
        if not rows:
            return
        if len(keep) < count:
            next_B = next_B[mx.array(keep)]
            choose.filter(keep)
            for layer in cache:
                layer.filter(keep)
        tokens_B = next_B
        if step % STEPS_PER_CLEARING == 0:
            mx.clear_cache()
