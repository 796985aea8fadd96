"""One optimizer step, compiled: loss, gradients, clipping and update in one graph that carries its whole state.

The state of the graph is `[model.state, optimizer.state, mx.random.state]`. Below float32 the weights stay float32
and are cast inside the loss, so that small updates are not rounded away and gradients come back in float32.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_map

from zoo.config import UserError
from zoo.runtime.processes import ALONE, Processes
from zoo.training.loss import Arrays, judged
from zoo.training.objective import Details, NextToken, Objective
from zoo.training.shards import OptimizerShards
from zoo.training.updates import update_clipped
from zoo.training.weight_shards import WeightShards

# What each of several processes keeps only a part of: the optimizer's state, or weights and gradients as well.
Shard = Literal["optimizer", "weights"]
# An objective's loss and details.
_Found = tuple[mx.array, Details]


class NonFiniteError(UserError):
    """Loss or gradient is no number any more: the run cannot go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step computes.

    Attributes:
        causal: Whether the model reads left to right.
        dtype: Of the forward and backward pass; the weights keep theirs.
        max_grad_norm: Gradients of a larger global norm are scaled down to it; None never scales.
        compile: Whether the graph is compiled.
        loss_rows: Positions whose logits exist at one time; None for all.
    """

    causal: bool
    dtype: mx.Dtype = mx.float32
    max_grad_norm: float | None = None
    compile: bool = True
    loss_rows: int | None = None


class TrainStep:
    """Updates a model by one batch, given in one or more parts that share one update."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        options: StepOptions,
        objective: Objective | None = None,
        processes: Processes = ALONE,
        *,
        shard: Shard | None = None,
    ) -> None:
        """Binds the step to the present state of model and optimizer; load checkpoints before.

        Args:
            model: Trained in place, as far as the objective has it learn.
            optimizer: Of what learns.
            options: How to compute.
            objective: What to make smaller; None for the loss on the text.
            processes: Over which gradients are averaged; each has other rows of a batch.
            shard: What each of several processes keeps only a part of; None for nothing.

        Raises:
            UserError: If that cannot be shared out.
        """
        self.processes = processes
        self.objective = objective or NextToken()
        self.whole, self.model = model, self.objective.learner(model)
        self.optimizer = optimizer
        self.options = options
        self._shards = None if processes.size == 1 else self._shared_out(shard)
        # An evaluation between two steps must not change how the next one is traced.
        functions = (self._update_by_whole, self._gradients, self._add_gradients, self._update_by_gradients)
        self._whole, self._first, self._next, self._last = (
            _compiled(each, [*self.state, *self.objective.state], self.state, options.compile) for each in functions
        )

    @property
    def state(self) -> list[Any]:
        """Everything that a step reads and changes."""
        return [self.model.state, self.optimizer.state, mx.random.state]

    def _shared_out(self, shard: Shard | None) -> OptimizerShards | WeightShards | None:
        if shard == "weights":
            if self.model is not self.whole:
                raise UserError("launch.shard must be optimizer or null where attention layers learn by themselves")
            return WeightShards(self.model, self.optimizer, self.processes)
        return OptimizerShards(self.model, self.optimizer, self.processes) if shard == "optimizer" else None

    def whole_model(self) -> contextlib.AbstractContextManager[None]:
        """Inside, every process has the whole model; all of them enter at once."""
        return contextlib.nullcontext() if self._shards is None else self._shards.whole_model()

    def release(self) -> None:
        """Leaves the whole model on every process, after the last step."""
        if self._shards is not None:
            self._shards.release()

    def whole_optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state as a checkpoint holds it, on the process that leads; all processes ask at once."""
        state: dict[str, Any] = self.optimizer.state
        return state if self._shards is None else self._shards.whole_state()

    def __call__(self, parts: list[Arrays], weight: float | mx.array) -> tuple[mx.array, mx.array, Details]:
        """Makes the step; nothing is computed until the results or the state are evaluated, unless there are parts.

        Args:
            parts: Arrays of `zoo.training.batches.to_arrays`, of this process's rows.
            weight: Sum of the weights over all parts and processes, a float32 scalar where it is not known yet; the
                gradient is that of loss / weight.

        Returns:
            The weighted loss summed over the batch (nats, of the text's), the gradient's global norm before clipping,
            and the objective's details, summed; float32 scalars.
        """
        # Gradients are averaged over the processes, and meant to be summed.
        size = self.processes.size
        scale = size / weight if isinstance(weight, mx.array) else mx.array(size / weight, dtype=mx.float32)
        if len(parts) == 1:
            return self._whole(parts[0], scale)
        found, gradients = self._first(parts[0], scale)
        for part in parts[1:]:
            # Evaluated part by part: the point of parts is that only one is in memory.
            mx.eval(found, gradients, mx.random.state)
            found, gradients = self._next(part, scale, found, gradients)
        norm = self._last(gradients)
        found = self.processes.sum_arrays(found)
        return found[0], norm, found[1]

    def _gradients(self, batch: Arrays, scale: mx.array) -> tuple[_Found, Any]:
        master = self.model.trainable_parameters()

        def loss(parameters: Any) -> tuple[mx.array, _Found]:
            self.model.update(cast_floats(parameters, self.options.dtype))
            found = self.objective(self.whole, batch, causal=self.options.causal, rows=self.options.loss_rows)
            return found[0] * scale, found

        (_, found), gradients = mx.value_and_grad(loss)(master)
        self.model.update(master)
        return found, gradients

    def _add_gradients(self, batch: Arrays, scale: mx.array, found: _Found, gradients: Any) -> tuple[_Found, Any]:
        more_found, more = self._gradients(batch, scale)
        return tree_map(mx.add, found, more_found), tree_map(mx.add, gradients, more)

    def _update_by_gradients(self, gradients: Any) -> mx.array:
        limit = self.options.max_grad_norm
        if self._shards is not None:
            return self._shards.update(gradients, limit)
        return update_clipped(self.optimizer, self.model, self.processes.average_gradients(gradients), limit)

    def _update_by_whole(self, batch: Arrays, scale: mx.array) -> tuple[mx.array, mx.array, Details]:
        found, gradients = self._gradients(batch, scale)
        norm = self._update_by_gradients(gradients)
        found = self.processes.sum_arrays(found)
        return found[0], norm, found[1]


class EvaluationStep:
    """Nats and right guesses of a batch without gradients; the model must be in evaluation mode."""

    def __init__(self, model: nn.Module, options: StepOptions) -> None:
        """Binds the step to the model's state."""
        self.model = model
        self.options = options
        self._judged = mx.compile(self._compute, inputs=model.state) if options.compile else self._compute

    def __call__(self, batch: Arrays) -> tuple[mx.array, mx.array]:
        """Weighted nats, and weights of the targets guessed right, summed over the batch; float32 scalars."""
        return self._judged(batch)

    def _compute(self, batch: Arrays) -> tuple[mx.array, mx.array]:
        master = self.model.trainable_parameters()
        self.model.update(cast_floats(master, self.options.dtype))
        found = judged(self.model, batch, causal=self.options.causal, rows=self.options.loss_rows)
        self.model.update(master)
        return found


def cast_floats(tree: Any, dtype: mx.Dtype) -> Any:
    """A tree whose floating-point arrays have another dtype."""
    return tree_map(lambda array: array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array, tree)


def _compiled(function: Callable[..., Any], read: list[Any], changed: list[Any], enabled: bool) -> Callable[..., Any]:
    return mx.compile(function, inputs=read, outputs=changed) if enabled else function
