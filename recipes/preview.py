"""Text for the eye: what a freshly trained model makes of a prompt or of masked tokens."""

import re
from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.data import Batch, Tokenizer
from zoo.generation import GenerationConfig, generate_text
from zoo.models import Model
from zoo.ops.masks import MaskSpec

# A prompt of a corpus's own is its first words, at most so many characters: scripts without spaces have long words.
_WORDS = re.compile(r"\s*(?:\S+\s+){0,2}\S+")
_MOST_CHARACTERS = 40


def first_words(tokenizer: Tokenizer, batches: Iterable[Batch]) -> str:
    """The first words of the first document that begins in these batches.

    Args:
        tokenizer: The batches' tokenizer.
        batches: Of a causal loader.

    Returns:
        Up to three words as they stand in the text; those of the first row if all documents began before it, and
        nothing if there is no text.
    """
    inside = ""
    for row_L in (row_L for batch in batches for row_L in batch.inputs_BL):
        ends_L = np.isin(row_L, (tokenizer.eos_id, tokenizer.pad_id))
        for number, piece_L in enumerate(np.split(row_L, np.flatnonzero(ends_L))):
            # A character that the end of the row cuts in two is left out.
            found = _WORDS.match(tokenizer.decode(piece_L.tolist()).rstrip("\ufffd"))
            words = "" if found is None else found[0][:_MOST_CHARACTERS]
            if words and number > 0:
                return words
            inside = inside or words
    return inside


def continuation(model: Model, tokenizer: Tokenizer, *, prompt: str, num_tokens: int, seed: int) -> str:
    """Continues a prompt at moderate temperature.

    Args:
        model: A language model.
        tokenizer: Its tokenizer.
        prompt: The beginning.
        num_tokens: How many tokens to add at most.
        seed: Equal seeds give equal text.

    Returns:
        The prompt and its continuation.
    """
    config = GenerationConfig(max_tokens=num_tokens, temperature=0.8, top_p=0.95, seed=seed)
    return prompt + generate_text(model, tokenizer, prompt, config).text


def filled_in(model: Model, tokenizer: Tokenizer, batch: Batch, *, num_tokens: int) -> str:
    """Shows an encoder's first guesses for the masked tokens of a row.

    Args:
        model: An encoder, in evaluation mode.
        tokenizer: Its tokenizer.
        batch: Of a masked-token loader; its first row is read.
        num_tokens: How many tokens of the row.

    Returns:
        The text, each masked token as `[guess|truth]`, or `[=truth]` where they agree.
    """
    inputs_L, targets_L = batch.inputs_BL[0], batch.targets_BL[0]
    segments_BL = None if batch.segments_BL is None else mx.array(batch.segments_BL[:1])
    lengths_B = None if batch.lengths_B is None else mx.array(batch.lengths_B[:1])
    mask = MaskSpec(causal=False, lengths_B=lengths_B, segments_BL=segments_BL)
    logits_BLV: Any = model(mx.array(inputs_L)[None], mask=mask)
    guesses_L = np.array(mx.argmax(logits_BLV[0], axis=-1))
    pieces: list[str] = []
    plain: list[int] = []
    for index in range(min(num_tokens, len(inputs_L))):
        if not batch.weights_BL[0, index]:
            plain.append(int(inputs_L[index]))
            continue
        guess, truth = tokenizer.decode([int(guesses_L[index])]), tokenizer.decode([int(targets_L[index])])
        mark = f"[={truth}]" if guesses_L[index] == targets_L[index] else f"[{guess}|{truth}]"
        pieces += [tokenizer.decode(plain), mark]
        plain = []
    return "".join([*pieces, tokenizer.decode(plain)])
