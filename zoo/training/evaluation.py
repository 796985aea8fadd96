"""Validation loss: nats per predicted token, and bits per byte, which compares across tokenizers.

    bits_per_byte = sum(nats) / (ln 2 · sum(UTF-8 bytes of the predicted tokens))

Exact: tokenizers say how many bytes each token stands for, and a document's end counts its nats but no bytes.
"""

import dataclasses
import math
from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from zoo.data.loader import Batch
from zoo.training.batches import to_arrays
from zoo.training.step import EvaluationStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        loss: Nats per predicted token; not a number if there is none.
        bits_per_byte: Bits per byte of the predicted tokens; None if they stand for no bytes.
        tokens: Predicted tokens, by weight.
    """

    loss: float
    bits_per_byte: float | None
    tokens: float


def evaluate(
    model: nn.Module, step: EvaluationStep, batches: Iterable[Batch], token_byte_lengths_V: np.ndarray
) -> Evaluation:
    """Evaluates a model, with dropout off; it is left in training mode.

    Args:
        model: The model of `step`.
        step: Computes the nats of a batch.
        batches: Validation batches.
        token_byte_lengths_V: UTF-8 bytes of each token of the vocabulary, int32.

    Returns:
        The loss over all batches, weighted by token.
    """
    model.eval()
    nats = weight = num_bytes = 0.0
    for batch in batches:
        (arrays,) = to_arrays(batch)
        batch_nats = step(arrays)
        mx.async_eval(batch_nats)
        # Counted while the device computes; summed in double precision over batches.
        lengths = token_byte_lengths_V[batch.targets_BL]
        weight += float(batch.weights_BL.sum(dtype=np.float64))
        num_bytes += float((lengths * batch.weights_BL).sum(dtype=np.float64))
        nats += scalar(batch_nats)
    model.train()
    bits_per_byte = nats / math.log(2) / num_bytes if num_bytes else None
    return Evaluation(loss=nats / weight if weight else math.nan, bits_per_byte=bits_per_byte, tokens=weight)


def scalar(array: mx.array) -> float:
    """The value of a real array of one element, once computed."""
    value = array.item()
    assert not isinstance(value, complex)
    return float(value)
