"""From the loader's NumPy batches to the arrays of a step: split into parts, and only predicted positions kept.

Letters: B batch, L query length, P predicted positions.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from zoo.data.loader import Batch, ProcessShare
from zoo.runtime.processes import Processes
from zoo.training.loss import Arrays

# A step is compiled per shape, which costs about as much as making it. Predicted positions are padded to whole quarters
# of the tokens, so that masked-token batches, whose number of masked tokens varies by chance, nearly always share one
# shape, and those of examples a few.
_QUARTERS = 4


class TrainingBatches(Protocol):
    """What the loop needs of the training split's loader."""

    def batch(self, step: int) -> Batch:
        """This process's rows of the batch of a step, a pure function of the step."""


class ValidationBatches(Protocol):
    """What the loop needs of the validation split's loader."""

    def validation_batches(self, limit: int | None = None) -> Iterator[Batch]:
        """This process's rows of at most `limit` batches, always the same."""


def to_arrays(batch: Batch, *, parts: int = 1) -> list[Arrays]:
    """Makes the arrays of a batch, split by rows into equal parts.

    Args:
        batch: From a loader; its number of rows is a multiple of `parts`.
        parts: How many.

    Returns:
        One dict a part: `inputs_BL` int32; `targets_P` int32 and `weights_P` float32; `picks_P` int32, the
        flattened positions these belong to, absent if all are predicted; `segments_BL`, `lengths_B` and
        `token_types_BL` where the batch has them. All parts have the same shapes.
    """
    rows = [slice(start, start + len(batch.inputs_BL) // parts) for start in _starts(batch, parts)]
    weights = [batch.weights_BL[part].reshape(-1) for part in rows]
    total = weights[0].size
    # At least one, of weight 0 where nothing is predicted: not every operation takes an empty array.
    most = max(1, *(int(np.count_nonzero(each)) for each in weights))
    picked = -(-most * _QUARTERS // total) * total // _QUARTERS
    num_rows = rows[0].stop
    # Texts to classify have one in each row, always.
    if most <= num_rows:
        picked = min(num_rows, total)
    return [_arrays(batch, part, flat, picked) for part, flat in zip(rows, weights, strict=True)]


def own_rows(batch: Batch, processes: Processes) -> Batch:
    """The part of a batch that this process computes on; the identity stays that of the whole."""
    rows = ProcessShare(rank=processes.rank, world_size=processes.size).places(len(batch.inputs_BL))
    arrays: dict[str, Any] = {name: value for name, value in vars(batch).items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(batch, **{name: array[rows] for name, array in arrays.items()})


def num_tokens(batch: Batch) -> int:
    """Number of tokens that the model reads, padding not counted."""
    return batch.inputs_BL.size if batch.lengths_B is None else int(batch.lengths_B.sum())


def _starts(batch: Batch, parts: int) -> range:
    size = len(batch.inputs_BL)
    assert size % parts == 0, f"{size} rows cannot be split into {parts} equal parts"
    return range(0, size, size // parts)


def _arrays(batch: Batch, rows: slice, weights_P: np.ndarray, picked: int) -> Arrays:
    targets_P = batch.targets_BL[rows].reshape(-1)
    arrays = {"inputs_BL": mx.array(batch.inputs_BL[rows])}
    if picked < weights_P.size:
        # A stable sort puts the predicted positions first, in text order; the rest of weight 0 pads them.
        picks_P = np.argsort(weights_P == 0, kind="stable")[:picked].astype(np.int32)
        targets_P, weights_P = targets_P[picks_P], weights_P[picks_P]
        arrays["picks_P"] = mx.array(picks_P)
    arrays["targets_P"] = mx.array(targets_P)
    arrays["weights_P"] = mx.array(weights_P.astype(np.float32))
    if batch.token_types_BL is not None:
        arrays["token_types_BL"] = mx.array(batch.token_types_BL[rows])
    if batch.segments_BL is not None:
        arrays["segments_BL"] = mx.array(batch.segments_BL[rows])
    if batch.lengths_B is not None:
        arrays["lengths_B"] = mx.array(batch.lengths_B[rows])
    return arrays
