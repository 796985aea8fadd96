"""Filling the masks of a text with an encoder's guesses.

Letters: B batch, L length, M masks, V vocabulary.
"""

import dataclasses
import time
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.data.tokenizers import Tokenizer

# Guesses for each mask.
_NUM_GUESSES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guess:
    """What may stand behind a mask.

    Attributes:
        text: The token's text.
        probability: Among all tokens that have a text.
    """

    text: str
    probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilledText:
    """A text whose masks are filled.

    Attributes:
        text: The text, each mask replaced by its best guess.
        guesses: The best guesses for each mask, best first.
        prompt_tokens: Tokens of the text, masks included.
        seconds: What the model took.
    """

    text: str
    guesses: tuple[tuple[Guess, ...], ...]
    prompt_tokens: int
    seconds: float


def fill_masks(model: Any, tokenizer: Tokenizer, text: str) -> FilledText:
    """Fills the masks of a text, all at once: no guess knows of another.

    Args:
        model: An encoder, in evaluation mode.
        tokenizer: Its tokenizer.
        text: Holds `tokenizer.mask_text` at least once.

    Raises:
        UserError: If the tokenizer has no mask, the text has none or is too long, or the scores are no numbers.
    """
    if tokenizer.mask_id is None:
        raise UserError("checkpoint must have a tokenizer with a mask token to fill masks; its tokenizer has none")
    ids = tokenizer.encode_masked(text)
    masks = [index for index, token in enumerate(ids) if token == tokenizer.mask_id]
    if not masks:
        raise UserError(
            f"prompt must hold {tokenizer.mask_text}: the checkpoint is an encoder, which fills masks; got"
            f" {shortened(text)}"
        )
    limit, vocab_size = model.config.position_limit, model.config.vocab_size
    if limit is not None and len(ids) > limit:
        raise UserError(f"prompt must have at most model.max_seq_len = {limit} tokens; got {len(ids)}")
    if max(ids) >= vocab_size:
        raise UserError(
            f"prompt must have tokens below model.vocab_size = {vocab_size}; got {max(ids)}; the tokenizer belongs to"
            " another model"
        )
    started = time.perf_counter()
    logits_MV = model(mx.array([ids], dtype=mx.int32))[0, mx.array(masks)].astype(mx.float32)
    mx.eval(logits_MV)
    seconds = time.perf_counter() - started
    with_text_V = np.zeros(vocab_size, dtype=bool)
    with_text_V[: tokenizer.vocab_size] = (tokenizer.token_byte_lengths() > 0)[:vocab_size]
    guesses = tuple(_guesses(logits_V, with_text_V, tokenizer) for logits_V in np.array(logits_MV))
    parts = text.split(tokenizer.mask_text)
    filled = [piece for part, (best, *_) in zip(parts, guesses, strict=False) for piece in (part, best.text)]
    return FilledText(
        text="".join([*filled, *parts[len(guesses) :]]), guesses=guesses, prompt_tokens=len(ids), seconds=seconds
    )


def _guesses(logits_V: np.ndarray, with_text_V: np.ndarray, tokenizer: Tokenizer) -> tuple[Guess, ...]:
    if np.isnan(logits_V).any():
        raise UserError(
            "checkpoint must give scores that are numbers; got NaN for a mask: its weights are no numbers, or too"
            " large for the dtype"
        )
    scores_V = np.where(with_text_V, logits_V, -np.inf).astype(np.float64)
    chances_V = np.exp(scores_V - scores_V.max())
    chances_V /= chances_V.sum()
    best = [token for token in np.argsort(-chances_V, kind="stable")[:_NUM_GUESSES] if with_text_V[token]]
    return tuple(Guess(text=tokenizer.decode([int(token)]), probability=float(chances_V[token])) for token in best)
