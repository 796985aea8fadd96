"""Fully sharded training (FSDP): each of several processes keeps its rows of the blocks' weights, gradients and state.

MLX's `nn.fully_shard` gathers a block's weights before it is computed, and scatters the sums of its gradients after;
what it needs, a back end's `sum_scatter`, NCCL has and MLX's ring has not. Zhao et al. (2023), PyTorch FSDP,
https://arxiv.org/abs/2304.11277. Embeddings, final norm and heads stay whole on every process.

The optimizer updates the rows that it sees, which is the same as updating whole arrays for AdamW and Lion, but not for
Muon. For a checkpoint, and when the training ends, the whole model is gathered on every process.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx import optimizers
from mlx.utils import tree_flatten, tree_unflatten

from zoo.config import UserError
from zoo.runtime.processes import Processes
from zoo.training.updates import Muon

# In the name of what a process keeps its rows of, what MLX's wrapper adds.
_WRAPPED = re.compile(r"(?<=layers\.)(\d+)\.module(?=\.)")


class WeightShards:
    """A model whose blocks are shared out, and the optimizer's state of this process's rows."""

    def __init__(self, model: Any, optimizer: optimizers.Optimizer, processes: Processes) -> None:
        """Shares out the blocks of a model, and the state of its optimizer.

        Args:
            model: Whole, all of it trained; changed in place.
            optimizer: Initialised for it, or restored; AdamW or Lion.
            processes: At least two.

        Raises:
            UserError: If the back end cannot do it, or the weights or the optimizer cannot be shared out.
        """
        assert processes.group is not None, "one process has nothing to share"
        self._model, self._optimizer, self._processes, self._group = model, optimizer, processes, processes.group
        self._require_able()
        if model.adapters is not None:
            raise UserError("launch.shard must be optimizer or null with adapters, whose base stays as it is")
        try:
            model.layers = [nn.fully_shard(block, group=self._group) for block in model.layers]
        except ValueError as error:
            raise UserError(f"launch.shard must be optimizer or null for this model; {error}") from None
        own = {}
        for name, array in _flat(optimizer.state).items():
            parameter = re.sub(r"(?<=layers\.)(\d+)(?=\.)", r"\1.module", name)
            own[parameter] = array if parameter == name else self._rows(array)
        optimizer.state = tree_unflatten(list(own.items()))

    def update(self, gradients: Any, limit: float | None) -> mx.array:
        """Updates this process's rows, and what is whole, by gradients of this process's part of a batch.

        Args:
            gradients: Of the rows already averaged over the processes, as the blocks' backward pass leaves them.
            limit: Their highest global norm; None never scales.

        Returns:
            The global norm before clipping, a float32 scalar.
        """
        flat = _flat(gradients)
        of_rows = {name: array for name, array in flat.items() if _WRAPPED.search(name)}
        whole: dict[str, mx.array] = {name: array for name, array in flat.items() if name not in of_rows}
        whole = _flat(self._processes.average_gradients(tree_unflatten(list(whole.items()))))
        squares = mx.distributed.all_sum(_squares(of_rows), group=self._group) + _squares(whole)
        norm = mx.sqrt(squares)
        scale = mx.array(1.0) if limit is None else mx.minimum(limit / (norm + 1e-6), 1.0)
        averaged = {**of_rows, **whole}
        self._optimizer.update(self._model, tree_unflatten([(name, averaged[name] * scale) for name in flat]))
        return norm

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[None]:
        """Inside, every process has the whole model; all of them enter at once."""
        wrapped = self._model.layers
        shards = [each.module.parameters() for each in wrapped]
        for each in wrapped:
            each.module.update(self._gathered(each.module.parameters()))
        self._model.layers = [each.module for each in wrapped]
        mx.eval(self._model.parameters())
        try:
            yield
        finally:
            for each, own in zip(wrapped, shards, strict=True):
                each.module.update(own)
            self._model.layers = wrapped

    def whole_state(self) -> dict[str, Any]:
        """The optimizer's state of the whole model; all processes ask at once."""
        found = {}
        for name, array in _flat(self._optimizer.state).items():
            plain = _WRAPPED.sub(r"\1", name)
            found[plain] = array if plain == name else self._all_rows(array)
            mx.eval(found[plain])
        whole: dict[str, Any] = tree_unflatten(list(found.items()))
        return whole

    def release(self) -> None:
        """Leaves the whole model on every process; all of them ask at once."""
        with self.whole_model():
            layers = self._model.layers
            whole = [each.parameters() for each in layers]
        self._model.layers = layers
        for each, parameters in zip(layers, whole, strict=True):
            each.update(parameters)

    def _require_able(self) -> None:
        try:
            mx.eval(mx.distributed.sum_scatter(mx.zeros(self._processes.size), group=self._group))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"launch.shard must be optimizer or null with this back end, which lacks what nn.fully_shard needs"
                f" ({reason}); NCCL has it"
            ) from None
        parts = self._optimizer.optimizers if isinstance(self._optimizer, optimizers.MultiOptimizer) else []
        if any(isinstance(part, Muon) for part in parts):
            raise UserError("launch.shard must be optimizer or null with optimizer=muon, which needs whole matrices")

    def _rows(self, array: mx.array) -> mx.array:
        """This process's rows, as `nn.fully_shard` shares them out."""
        return mx.split(array, self._processes.size, axis=0)[self._processes.rank]

    def _all_rows(self, array: mx.array) -> mx.array:
        return mx.distributed.all_gather(array, group=self._group)

    def _gathered(self, rows: Any) -> Any:
        return tree_unflatten([(name, self._all_rows(array)) for name, array in _flat(rows).items()])


def _squares(arrays: dict[str, mx.array]) -> mx.array:
    return sum((array.square().sum() for array in arrays.values()), mx.array(0.0))


def _flat(tree: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))
