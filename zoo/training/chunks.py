"""Losses of which only a part of the logits exists at one time.

The forward pass computes the gradient of each chunk of positions as it comes, as Liger kernels do (Hsu et al.,
https://arxiv.org/abs/2410.10989), and the backward pass only scales it. Where the logits are a plain product with a
float32 matrix and there are compiled kernels, the matrix's gradient is summed in place, and large vocabularies get
chunks unasked: at [1024, 49152] they take 1.3 to 1.4 times the time of all logits at once, and a tenth of the memory.

Letters: P predicted positions, D hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from zoo.runtime.native import native_kernels, native_kernels_if_any

# Nats [P] of hidden states [P, D] and what they are held against [P, …].
Nats = Callable[[mx.array, mx.array], mx.array]

# Logits from which chunks are made unasked, 128 MB; and of a chunk: a tenth, but no fewer than 20 MB and no more than
# 64, since each chunk passes over the whole matrix and its gradient.
_MANY, _PARTS, _FEW, _MOST = 1 << 25, 10, 5 << 20, 1 << 24
# Rows that a BLAS computes at a time.
_GRAIN = 48


def rows_at_one_time(positions: int, vocab_size: int) -> int:
    """Positions whose logits are to exist at one time where nothing is asked for: all without compiled kernels."""
    if native_kernels_if_any() is None or positions * vocab_size < _MANY:
        return max(1, positions)
    rows = min(max(positions // _PARTS, _FEW // vocab_size), _MOST // vocab_size)
    return max(1, rows // _GRAIN) * _GRAIN


def slices(length: int, rows: int) -> list[slice]:
    """Of `rows` each, the last one shorter."""
    return [slice(start, start + rows) for start in range(0, length, rows)]


def after(x: mx.array, others: Sequence[mx.array]) -> mx.array:
    """The same array, once others are computed: side by side, their logits would exist at once all the same."""
    kernels = native_kernels_if_any()
    # MLX only orders; its CPU back end allocates some operations ahead of what it computes.
    later: mx.array = mx.depends([x], list(others))[0] if kernels is None else kernels.after(x, list(others))
    return later


def of_the_head(model: nn.Module) -> Any:
    """What is trained of the parameters that logits can depend on."""
    outside = {name: each for name, each in model.trainable_parameters().items() if name != "layers"}
    if not model.config.tie_word_embeddings or model.config.classifies:
        outside.pop("embed_tokens", None)
    return outside


def in_chunks(model: nn.Module, nats_of: Nats, rows: int) -> Any:
    """The weighted sum of nats as a function of (head, x_PD, targets, weights_P), with its gradients beside it."""

    def of_chunk(head: Any, x_PD: mx.array, targets: mx.array, weights_P: mx.array) -> mx.array:
        model.update(head)
        return (nats_of(x_PD, targets) * weights_P).sum()

    def forward(head: Any, x_PD: mx.array, targets: mx.array, weights_P: mx.array) -> tuple[mx.array, Any, mx.array]:
        nats, of_head = mx.zeros(()), tree_map(lambda array: mx.zeros(array.shape), head)
        of_x: list[mx.array] = []
        for part in slices(len(weights_P), rows):
            before = [nats, *of_x[-1:], *dict(tree_flatten(of_head)).values()]
            chunk_PD, chunk = after(x_PD[part], before), after(targets[part], before)
            # MLX takes no gradient of nothing, which a frozen head is.
            places = (0, 1) if tree_flatten(head) else (1,)
            more, gradients = mx.value_and_grad(of_chunk, argnums=places)(head, chunk_PD, chunk, weights_P[part])
            *more_of_head, more_of_x = gradients if isinstance(gradients, tuple) else (gradients,)
            nats = nats + more
            of_head = tree_map(mx.add, of_head, more_of_head[0]) if more_of_head else of_head
            of_x.append(more_of_x)
        model.update(head)
        return nats, of_head, mx.concatenate(of_x)

    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[Any, mx.array, mx.array, mx.array]:
        head, x_PD, targets, weights_P = primals
        of_head = tree_map(lambda array, like: (array * cotangents[0]).astype(like.dtype), outputs[1], head)
        of_x = (outputs[2] * cotangents[0]).astype(x_PD.dtype)
        return of_head, of_x, mx.zeros_like(targets), mx.zeros_like(weights_P)

    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    return function


def plain_projection(model: nn.Module) -> mx.array | None:
    """The matrix [V, D] if the model's scores are x @ matrix.T in float32 and kernels compute the loss; else None."""
    if native_kernels_if_any() is None:
        return None
    weight_VD: mx.array | None = model.projection()
    return weight_VD if weight_VD is not None and weight_VD.dtype == mx.float32 else None


def is_projection_trained(model: nn.Module) -> bool:
    """Whether a plain projection's matrix gets a gradient."""
    name = "embed_tokens" if model.config.tie_word_embeddings else "lm_head"
    return bool(tree_flatten(model.trainable_parameters().get(name, {})))


def chunks_of_projection(rows: int, *, trained: bool) -> Any:
    """The weighted sum of nats as a function of (weight_VD, x_PD, targets_P, weights_P), with its gradients beside it.

    Args:
        rows: Positions of a chunk.
        trained: Whether the matrix's gradient is needed.
    """
    kernels = native_kernels()

    def forward(
        weight_VD: mx.array, x_PD: mx.array, targets_P: mx.array, weights_P: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        nats, of_weight_VD = mx.zeros(()), mx.zeros_like(weight_VD)
        of_x: list[mx.array] = []
        for part in slices(len(weights_P), rows):
            before = [of_x[-1], *([of_weight_VD] if trained else [])] if of_x else []
            chunk_PD = after(x_PD[part], before)
            nats_P, gradient_PV = _nats_and_gradient(kernels, chunk_PD @ weight_VD.T, targets_P[part], weights_P[part])
            nats = nats + (nats_P * weights_P[part]).sum()
            if trained:
                # Over the sum so far, since nothing else needs it.
                product = (gradient_PV.T, chunk_PD)
                of_weight_VD = mx.addmm(of_weight_VD, *product) if of_x else mx.matmul(*product)
            of_x.append(gradient_PV @ weight_VD)
        return nats, of_weight_VD, mx.concatenate(of_x)

    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        _, _, targets_P, weights_P = primals
        # Scaled in place: until they are computed, the outputs hold each other.
        of_weight_VD = after(outputs[1], []) * cotangents[0]
        return of_weight_VD, outputs[2] * cotangents[0], mx.zeros_like(targets_P), mx.zeros_like(weights_P)

    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    return function


def _nats_and_gradient(
    kernels: ModuleType, logits_PV: mx.array, targets_P: mx.array, weights_P: mx.array
) -> tuple[mx.array, mx.array]:
    """Nats, and the gradient of their weighted sum, which is written over the logits."""
    nats, gradients = mx.vjp(lambda logits: kernels.cross_entropy(logits, targets_P), [logits_PV], [weights_P])
    return nats[0], gradients[0]
