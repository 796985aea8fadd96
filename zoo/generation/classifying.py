"""Saying what a text is, with a classifier.

Letters: B batch, L length, C classes.
"""

import dataclasses
import time
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer
from zoo.ops.exponential import normalised


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifiedText:
    """What a classifier says of a text.

    Attributes:
        label: The most probable class; its number where nobody has named the classes.
        probabilities: Of every class, by name, the most probable first.
        prompt_tokens: Tokens of the text.
        seconds: What the model took.
    """

    label: str
    probabilities: dict[str, float]
    prompt_tokens: int
    seconds: float


def classify_text(model: Any, tokenizer: Tokenizer, text: str, pair: str | None = None) -> ClassifiedText:
    """Classifies a text, or two that belong together.

    Args:
        model: An encoder with a classification head, in evaluation mode.
        tokenizer: Its tokenizer.
        text: To be classified.
        pair: The second text, for a model of pairs.

    Raises:
        UserError: If the text is too long, or the scores are no numbers.
    """
    ids, types = tokenizer.encode_pair(text, pair)
    config = model.config
    limit = config.position_limit
    if limit is not None and len(ids) > limit:
        raise UserError(f"prompt must have at most model.max_seq_len = {limit} tokens; got {len(ids)}")
    if max(ids) >= config.vocab_size or max(types) >= config.num_token_types:
        raise UserError(f"prompt must have tokens below model.vocab_size = {config.vocab_size}, of a known type")
    started = time.perf_counter()
    tokens_BL, types_BL = mx.array([ids], dtype=mx.int32), mx.array([types], dtype=mx.int32)
    scores_BC = model.classify(tokens_BL, token_types_BL=types_BL).astype(mx.float32)
    chances_C = np.array(normalised(scores_BC)[1][0], dtype=np.float64)
    seconds = time.perf_counter() - started
    if np.isnan(chances_C).any():
        raise UserError(
            "checkpoint must give scores that are numbers; got NaN: its weights are no numbers, or too large"
        )
    labels = config.labels or tuple(str(index) for index in range(config.num_classes))
    order = np.argsort(-chances_C, kind="stable")
    probabilities = {labels[index]: float(chances_C[index]) for index in order}
    return ClassifiedText(label=labels[order[0]], probabilities=probabilities, prompt_tokens=len(ids), seconds=seconds)
