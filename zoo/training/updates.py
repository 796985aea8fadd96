"""Steps of optimizers in compiled kernels (the folder `native/`), Muon's of many matrices at once.

The optimizers are those of MLX, with the same state under the same names. Where there are kernels a step of AdamW or
Lion reads each number once and writes it once, over what it replaces if nothing else needs it; Muon's does so before
and after its products. All of them multiply the gradient by the clipping's factor on the way.
"""

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx import optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from zoo.runtime.native import kernels_for


class AdamW(optimizers.AdamW):
    """MLX's AdamW, which the kernels compute where they can.

    Attributes:
        gradient_scale: Float32 scalar that gradients are multiplied by, during an update; None for 1.
    """

    gradient_scale: mx.array | None = None

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The new parameter; `state` gets its new means."""
        kernels = kernels_for(gradient, parameter, state["m"], state["v"])
        if kernels is None or not self.bias_correction:
            return super().apply_single(_scaled(gradient, self.gradient_scale), parameter, state)
        new_parameter, state["m"], state["v"] = kernels.adamw(
            parameter,
            gradient,
            state["m"],
            state["v"],
            rate=self.learning_rate,
            step=self.step,
            scale=_one_if_none(self.gradient_scale),
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
        return cast(mx.array, new_parameter)


class Lion(optimizers.Lion):
    """MLX's Lion, which the kernels compute where they can.

    Attributes:
        gradient_scale: As of `AdamW`.
    """

    gradient_scale: mx.array | None = None

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The new parameter; `state` gets its new mean."""
        kernels = kernels_for(gradient, parameter, state["m"])
        if kernels is None:
            return super().apply_single(_scaled(gradient, self.gradient_scale), parameter, state)
        new_parameter, state["m"] = kernels.lion(
            parameter,
            gradient,
            state["m"],
            rate=self.learning_rate,
            scale=_one_if_none(self.gradient_scale),
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
        )
        return cast(mx.array, new_parameter)


class Muon(optimizers.Muon):
    """MLX's Muon for matrices alone, those of one shape orthogonalised together.

    Newton and Schulz's iteration is some fifteen products for each matrix, small ones in small models: of several
    matrices at a time they are a few operations.

    Attributes:
        gradient_scale: As of `AdamW`.
    """

    gradient_scale: mx.array | None = None

    def apply_gradients(self, gradients: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        """The new parameters."""
        directions = dict(tree_flatten(super().apply_gradients(gradients, parameters)))
        flat = dict(tree_flatten(parameters))
        alike: dict[tuple[int, ...], list[str]] = {}
        for path, direction in directions.items():
            alike.setdefault(tuple(sorted(direction.shape)), []).append(path)
        new: dict[str, mx.array] = {}
        for paths in alike.values():
            wide = [_wide(directions[path]) for path in paths]
            orthogonal = _orthogonalised(mx.stack(wide), self.ns_steps)
            for path, found in zip(paths, orthogonal, strict=True):
                height, width = directions[path].shape
                rate = self.learning_rate.astype(found.dtype) * max(1, height / width) ** 0.5
                new[path] = _followed(flat[path], found.T if height > width else found, rate)
        # Without any matrix, MLX would make a list.
        unflattened: dict[str, Any] = tree_unflatten(list(new.items())) if new else {}
        return unflattened

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        """The direction of a matrix, before it is orthogonalised; `state` gets its new momentum."""
        momentum = self.momentum
        kernels = kernels_for(gradient, parameter, state["v"])
        if kernels is not None:
            direction, state["v"] = kernels.muon(
                parameter,
                gradient,
                state["v"],
                scale=_one_if_none(self.gradient_scale),
                momentum=momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
            return cast(mx.array, direction)
        gradient = _scaled(gradient, self.gradient_scale)
        if self.weight_decay != 0:
            gradient = gradient + self.weight_decay * parameter
        state["v"] = momentum * state["v"] + (1 - momentum) * gradient
        return gradient * (1 - momentum) + state["v"] * momentum if self.nesterov else state["v"]


def _followed(parameter: mx.array, direction: mx.array, rate: mx.array) -> mx.array:
    """The parameter after a step of this rate against the direction."""
    kernels = kernels_for(parameter, direction, rate)
    moved: mx.array = (
        parameter - rate * direction if kernels is None else kernels.descent(parameter, direction, rate=rate)
    )
    return moved


def _wide(matrix: mx.array) -> mx.array:
    """The matrix or its transpose, whichever has no more rows than columns."""
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _orthogonalised(x_PMN: mx.array, steps: int) -> mx.array:
    """P matrices [M, N] with singular values near 1, by the polynomial of Jordan (2024) that MLX has too."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x_PMN = x_PMN / (mx.linalg.norm(x_PMN, axis=[-2, -1], keepdims=True) + 1e-7)
    for _ in range(steps):
        square_PMM = x_PMN @ x_PMN.swapaxes(-1, -2)
        polynomial_PMM = mx.addmm(square_PMM, square_PMM, square_PMM, beta=b, alpha=c)
        x_PMN = mx.addmm(x_PMN, polynomial_PMM, x_PMN, beta=a)
    return x_PMN


def update_clipped(
    optimizer: optimizers.Optimizer,
    model: nn.Module,
    gradients: Any,
    limit: float | None,
    *,
    own: Callable[[Any], Any] = lambda gradients: gradients,
) -> mx.array:
    """Updates a model by gradients that are scaled down to a global norm.

    Args:
        optimizer: One of `zoo.training.build_optimizer`, or any other.
        model: Changed in place.
        gradients: Of its parameters.
        limit: The highest global norm; None never scales.
        own: Of a tree of gradients, those that are updated by; the norm is that of all.

    Returns:
        The global norm before clipping, a float32 scalar.
    """
    arrays: list[mx.array] = list(dict(tree_flatten(gradients)).values())
    kernels = kernels_for(*arrays)
    if kernels is None:
        clipped, norm = optimizers.clip_grad_norm(gradients, float("inf") if limit is None else limit)
        optimizer.update(model, own(gradients if limit is None else clipped))
        return norm
    norm = kernels.global_norm(arrays)
    gradients = own(gradients)
    if limit is None:
        optimizer.update(model, gradients)
        return norm
    # As MLX's `clip_grad_norm` has it.
    scale = mx.minimum(limit / (norm + 1e-6), 1.0)
    parts = optimizer.optimizers if isinstance(optimizer, optimizers.MultiOptimizer) else [optimizer]
    ours = [part for part in parts if isinstance(part, AdamW | Lion | Muon)]
    if len(ours) < len(parts):
        optimizer.update(model, tree_map(lambda gradient: _scaled(gradient, scale), gradients))
        return norm
    try:
        for part in ours:
            part.gradient_scale = scale
        optimizer.update(model, gradients)
    finally:
        for part in ours:
            part.gradient_scale = None
    return norm


def _scaled(gradient: mx.array, scale: mx.array | None) -> mx.array:
    return gradient if scale is None else (gradient * scale).astype(gradient.dtype)


def _one_if_none(scale: mx.array | None) -> mx.array:
    return mx.array(1.0) if scale is None else scale
