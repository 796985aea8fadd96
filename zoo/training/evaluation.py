"""Validation loss: nats per predicted token, bits per byte, which compares across tokenizers, and accuracy.

    bits_per_byte = sum(nats) / (ln 2 · sum(UTF-8 bytes of the predicted tokens))

Exact: tokenizers say how many bytes each token stands for, and a document's end counts its nats but no bytes. Tokens
of a synthetic task stand for no text at all.
"""

import dataclasses
import math
from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from zoo.data.loader import Batch
from zoo.runtime.processes import ALONE, Processes
from zoo.training.batches import to_arrays
from zoo.training.step import EvaluationStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        loss: Nats per predicted token; not a number if there is none.
        bits_per_byte: Bits per byte of the predicted tokens; None if they stand for no bytes.
        accuracy: Share of the predicted tokens that are the model's first guess; not a number if there is none.
        tokens: Predicted tokens, by weight.
    """

    loss: float
    bits_per_byte: float | None
    accuracy: float
    tokens: float


def evaluate(
    model: nn.Module,
    step: EvaluationStep,
    batches: Iterable[Batch],
    token_byte_lengths_V: np.ndarray | None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Evaluates a model, with dropout off; it is left in training mode.

    Args:
        model: The model of `step`.
        step: Judges a batch.
        batches: Validation batches, of each process its rows.
        token_byte_lengths_V: UTF-8 bytes of each token of the vocabulary, int32; None if tokens are no text.
        processes: Among which the rows are shared out; what is found is that of all.

    Returns:
        Means over all batches, weighted by token.
    """
    model.eval()
    nats = right = weight = num_bytes = 0.0
    for batch in batches:
        (arrays,) = to_arrays(batch)
        batch_nats, batch_right = step(arrays)
        mx.async_eval(batch_nats, batch_right)
        # Counted while the device computes; summed in double precision over batches.
        weight += float(batch.weights_BL.sum(dtype=np.float64))
        if token_byte_lengths_V is not None:
            lengths_BL = token_byte_lengths_V[batch.targets_BL]
            num_bytes += float((lengths_BL * batch.weights_BL).sum(dtype=np.float64))
        nats += scalar(batch_nats)
        right += scalar(batch_right)
    model.train()
    nats, right, weight, num_bytes = processes.sums(nats, right, weight, num_bytes)
    bits_per_byte = nats / math.log(2) / num_bytes if num_bytes else None
    loss, accuracy = (nats / weight, right / weight) if weight else (math.nan, math.nan)
    return Evaluation(loss=loss, bits_per_byte=bits_per_byte, accuracy=accuracy, tokens=weight)


def scalar(array: mx.array) -> float:
    """The value of a real array of one element, once computed."""
    # Waited for where MLX lets other threads run: one of them watches the other processes.
    mx.eval(array)
    value = array.item()
    assert not isinstance(value, complex)
    return float(value)
