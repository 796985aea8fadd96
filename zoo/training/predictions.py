"""What a model says of each target: its nats, and whether the most probable token is right.

Letters: B rows of a batch, L length, P predicted positions, V vocabulary, R rows of all batches.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.data import Batch
from zoo.training.batches import to_arrays
from zoo.training.loss import Arrays, predicted_scores, token_nats
from zoo.training.step import cast_floats


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """How a model did on the rows of one or more batches; 0 where nothing is predicted.

    Attributes:
        nats_RL: float64, weighted.
        correct_RL: float64, weighted: 1 where the most probable token is the target.
        weights_RL: float64.
        bytes_RL: float64, weighted: UTF-8 bytes of the targets.
    """

    nats_RL: np.ndarray
    correct_RL: np.ndarray
    weights_RL: np.ndarray
    bytes_RL: np.ndarray

    def between(self, start: int, end: int) -> "Predictions":
        """Those of the positions from `start` to before `end`."""
        return Predictions(**{name: array_RL[:, start:end] for name, array_RL in vars(self).items()})


class Predictor:
    """Runs a model over batches without gradients; the model must be in evaluation mode."""

    def __init__(self, model: Any, *, dtype: mx.Dtype, compiled: bool, token_byte_lengths_V: np.ndarray | None) -> None:
        """Binds to the model's weights.

        Args:
            model: Of `zoo.models`.
            dtype: Of the forward pass.
            compiled: Whether the graph is compiled, once per shape.
            token_byte_lengths_V: UTF-8 bytes of each token, int32; None where tokens stand for no text.
        """
        self._model, self._dtype, self._lengths_V = model, dtype, token_byte_lengths_V
        self._run = mx.compile(self._compute, inputs=model.state) if compiled else self._compute

    def __call__(self, batches: Iterable[Batch]) -> Predictions:
        """The predictions of all batches, as long as the longest."""
        assert not self._model.training, "an evaluation must not drop anything out"
        parts = list(self._each(batches))
        length = max(part.nats_RL.shape[1] for part in parts)

        def joined(name: str) -> np.ndarray:
            arrays = [getattr(part, name) for part in parts]
            return np.concatenate([np.pad(each, ((0, 0), (0, length - each.shape[1]))) for each in arrays])

        return Predictions(**{field.name: joined(field.name) for field in dataclasses.fields(Predictions)})

    def _each(self, batches: Iterable[Batch]) -> Iterator[Predictions]:
        for batch in batches:
            (arrays,) = to_arrays(batch)
            nats_P, correct_P = self._run(arrays)
            mx.async_eval(nats_P, correct_P)
            weights_BL = batch.weights_BL.astype(np.float64)
            picks_P = np.array(arrays["picks_P"]) if "picks_P" in arrays else np.arange(weights_BL.size)
            bytes_BL = np.zeros_like(weights_BL) if self._lengths_V is None else self._lengths_V[batch.targets_BL]
            yield Predictions(
                nats_RL=_spread(nats_P, picks_P, weights_BL),
                correct_RL=_spread(correct_P, picks_P, weights_BL),
                weights_RL=weights_BL,
                bytes_RL=bytes_BL * weights_BL,
            )

    def _compute(self, batch: Arrays) -> tuple[mx.array, mx.array]:
        model = self._model
        master = model.trainable_parameters()
        model.update(cast_floats(master, self._dtype))
        logits_PV = predicted_scores(model, batch, causal=model.config.causal)
        model.update(master)
        return token_nats(logits_PV, batch["targets_P"]), mx.argmax(logits_PV, axis=-1) == batch["targets_P"]


def _spread(values_P: mx.array, picks_P: np.ndarray, weights_BL: np.ndarray) -> np.ndarray:
    spread = np.zeros(weights_BL.size)
    spread[picks_P] = np.array(values_P.astype(mx.float32))
    return spread.reshape(weights_BL.shape) * weights_BL
