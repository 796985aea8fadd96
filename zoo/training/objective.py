"""What the steps of a run make smaller: by itself the loss on the text."""

import abc
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from zoo.data.loader import Batch
from zoo.training.loss import Arrays, summed_nats

# Further scalars of a batch by name, summed over it as the loss is.
Details = dict[str, mx.array]


class Objective(abc.ABC):
    """A loss, and what of a model learns by it.

    Attributes:
        name: Of the loss among the metrics.
        reads_original: Whether each batch goes through another model as well.
    """

    name: str
    reads_original = False

    @abc.abstractmethod
    def __call__(self, model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None) -> tuple[mx.array, Details]:
        """The weighted loss summed over a batch, a float32 scalar, and details of it.

        Args:
            model: The whole model.
            batch: What `zoo.training.batches.to_arrays` makes.
            causal: Whether the model reads left to right.
            rows: Positions whose logits exist at one time; None for all.
        """

    def learner(self, model: nn.Module) -> nn.Module:
        """The module whose trainable parameters learn: the model, or a part of it."""
        return model

    def weight(self, batch: Batch) -> float:
        """What the summed loss of a batch is divided by."""
        return float(batch.weights_BL.sum(dtype=np.float64))

    @property
    def state(self) -> list[Any]:
        """What it reads besides the learner and the batch."""
        return []


class NextToken(Objective):
    """Nats of the text's tokens; of the masked ones in an encoder."""

    name = "train_loss"

    def __call__(self, model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None) -> tuple[mx.array, Details]:
        return summed_nats(model, batch, causal=causal, rows=rows), {}
