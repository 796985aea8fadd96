"""Streaming the continuation of one prompt, over mlx-lm's `generate_step`."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step

from zoo.data.tokenizers import Tokenizer
from zoo.generation.config import GenerationConfig
from zoo.generation.model import LanguageModel, evaluating, require_language_model
from zoo.generation.prompt import prompt_ids
from zoo.generation.result import GenerationResult, TextPiece
from zoo.generation.row import Row
from zoo.generation.sampling import RowSampler, logits_processors


class _CutShortError(Exception):
    """Leaves mlx-lm's loop while it reads the prompt."""


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: GenerationConfig,
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator[TextPiece, None, None]:
    """Continues one prompt.

    Args:
        model: A language model.
        tokenizer: Its tokenizer.
        prompt: Text, possibly empty, or tokens.
        config: How to sample and when to end.
        interrupted: Asked after each token and each chunk of the prompt; the text ends where it says true.

    Yields:
        Pieces of text as they come; the last one carries the result.

    Raises:
        UserError: If the model cannot generate, cannot continue this prompt, or gives scores that are no numbers.
    """
    require_language_model(model)
    cache = model.make_cache()
    ids = prompt_ids(prompt, model=model, tokenizer=tokenizer)
    row = Row(0, ids, config, tokenizer=tokenizer, max_seq_len=model.config.position_limit)
    vocab_size = model.config.vocab_size

    def progress(processed: int, total: int) -> None:
        if processed == total:
            row.prefilled()
        elif interrupted():
            raise _CutShortError

    sampler = RowSampler(config, vocab_size=vocab_size)
    sampler.warm_up(vocab_size)
    row.start()
    steps = generate_step(
        mx.array(ids, dtype=mx.int32),
        model,
        # Its own default is a stream of whatever device was the default when mlx-lm was imported.
        mx.default_stream(mx.default_device()),
        max_tokens=-1 if row.limit is None else row.limit,
        sampler=sampler,
        logits_processors=logits_processors(config, num_texts=tokenizer.vocab_size, vocab_size=vocab_size),
        prompt_cache=cache,
        prefill_step_size=config.prefill_step_size,
        prompt_progress_callback=progress,
    )
    with evaluating(model):
        try:
            for token, _ in steps:
                yield row.add(token, cache_bytes=_cache_bytes(cache), interrupted=interrupted())
                if row.ended:
                    return
        except _CutShortError:
            yield row.cut_short(cache_bytes=_cache_bytes(cache))


def generate_text(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int], config: GenerationConfig
) -> GenerationResult:
    """Continues one prompt and returns the whole result; arguments and errors as in `stream_text`."""
    results = [piece.result for piece in stream_text(model, tokenizer, prompt, config)]
    assert results[-1] is not None
    return results[-1]


def _cache_bytes(cache: Sequence[Any]) -> int:
    return sum(layer.nbytes for layer in cache)
