"""ZeRO-1: each of several processes keeps the optimizer's state of some parameters, and updates those alone.

The first stage of Rajbhandari et al. (2020), https://arxiv.org/abs/1910.02054. Gradients are averaged as they are
without it; then each process updates its own parameters, and all gather what the others have updated. Weights,
losses and checkpoints are those of processes that keep the whole state, but for the rounding of a compiled graph, which
is fused by what is in it, and of Muon, which orthogonalises as many matrices at a time as a process has. A run may go
on with another number of processes, or without shards.

Where we deviate: a parameter belongs to one process as a whole, since Muon needs whole matrices and the norm of all
gradients is needed anyway; and gradients are summed for everybody, since MLX's ring has no `sum_scatter`. So a step
sends half as much again: 2 (P - 1) / P bytes for each byte of gradients, and (P - 1) times the largest shard.
"""

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from zoo.runtime.processes import Processes
from zoo.training.updates import update_clipped

# What the names of a state begin with that has several parts.
_OF_PART = re.compile(r"^states\.\d+\.")


class OptimizerShards:
    """The shares of an optimizer's state among processes, and this process's.

    Attributes:
        paths: Of each process, the parameters that it updates.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, processes: Processes) -> None:
        """Leaves the optimizer only this process's share of its state.

        Args:
            model: Whose trainable parameters are shared out, all of them float32.
            optimizer: Initialised for them, or restored.
            processes: At least two.
        """
        assert processes.group is not None, "one process has nothing to share"
        self._model, self._optimizer, self._processes, self._group = model, optimizer, processes, processes.group
        learnt = _flat(model.trainable_parameters())
        assert {array.dtype for array in learnt.values()} == {mx.float32}, "what is trained is in float32"
        self._shapes = {path: array.shape for path, array in learnt.items()}
        self._sizes = {path: array.size for path, array in learnt.items()}
        self.paths = shared_out(self._sizes, processes.size)
        self._largest = largest_share(self._sizes, processes.size)
        owners = {path: rank for rank, paths in enumerate(self.paths) for path in paths}
        state = _flat(optimizer.state)
        # What belongs to no parameter, such as the number of steps, everybody keeps: owner None.
        self._leaves = {name: (_owner(name, owners), array.shape) for name, array in state.items()}
        own = {name: array for name, array in state.items() if self._leaves[name][0] in (None, processes.rank)}
        optimizer.state = _tree(own)

    def update(self, gradients: Any, limit: float | None) -> mx.array:
        """Updates the model by gradients of this process's part of a batch; nothing is computed yet.

        Args:
            gradients: Of all trainable parameters.
            limit: The highest global norm of their averages; None never scales.

        Returns:
            The global norm before clipping, a float32 scalar.
        """
        averaged = self._processes.average_gradients(gradients)
        norm = update_clipped(self._optimizer, self._model, averaged, limit, own=self._own)
        self._gather()
        return norm

    def whole_model(self) -> contextlib.AbstractContextManager[None]:
        """Inside, every process has the whole model, as it has it always."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """Leaves the whole model on every process, as it is."""

    def _own(self, gradients: Any) -> Any:
        """Of a tree of gradients, those that this process updates by."""
        flat = _flat(gradients)
        return _tree({path: flat[path] for path in self.paths[self._processes.rank]})

    def _gather(self) -> None:
        """Gives the model the parameters that the others have updated."""
        own = _flat(self._model.trainable_parameters())
        mine = [own[path].reshape(-1) for path in self.paths[self._processes.rank]]
        padding = mx.zeros(self._largest - sum(array.size for array in mine), dtype=mx.float32)
        shares = mx.distributed.all_gather(mx.concatenate([*mine, padding])[None], group=self._group)
        found: dict[str, mx.array] = {}
        for share, paths in zip(shares, self.paths, strict=True):
            ends = list(itertools.accumulate(self._sizes[path] for path in paths))
            parts = mx.split(share, ends)[: len(paths)]
            found |= {path: part.reshape(self._shapes[path]) for path, part in zip(paths, parts, strict=True)}
        self._model.update(_tree(found))

    def whole_state(self) -> dict[str, Any]:
        """The state of all parameters, on the process that leads; on others nothing. All processes ask at once."""
        own, whole = _flat(self._optimizer.state), {}
        for name, (owner, shape) in self._leaves.items():
            if owner is None:
                found = own[name]
            else:
                # As whole numbers, whose sum with zeros keeps every bit, that of -0.0 too.
                bits = own[name].view(mx.int32) if owner == self._processes.rank else mx.zeros(shape, dtype=mx.int32)
                found = mx.distributed.all_sum(bits, group=self._group).view(mx.float32)
                # One by one, so that others than the leading process hold one at a time.
                mx.eval(found)
            if self._processes.leads:
                whole[name] = found
        return _tree(whole)


def shared_out(sizes: Mapping[str, int], processes: int) -> Sequence[Sequence[str]]:
    """Names for each of so many processes: the largest first, each to whoever has least so far; in the given order."""
    held, owner = [0] * processes, {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        owner[name] = held.index(min(held))
        held[owner[name]] += sizes[name]
    return [[name for name in sizes if owner[name] == rank] for rank in range(processes)]


def largest_share(sizes: Mapping[str, int], processes: int) -> int:
    """The size of the largest of the shares, which all are padded to where they are gathered."""
    return max(sum(sizes[name] for name in names) for names in shared_out(sizes, processes))


def _owner(name: str, owners: Mapping[str, int]) -> int | None:
    """The process that keeps a leaf of the state, such as `states.0.layers.0.mlp.up_proj.weight.m`."""
    return owners.get(_OF_PART.sub("", name).rpartition(".")[0])


def _flat(tree: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))


def _tree(arrays: Mapping[str, mx.array]) -> dict[str, Any]:
    # Without any, MLX would make a list.
    tree: dict[str, Any] = tree_unflatten(list(arrays.items())) if arrays else {}
    return tree
