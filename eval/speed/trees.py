"""Arrays out of trees of them, with the types that MLX's own functions on trees leave out."""

from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten


def named_arrays(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by their paths, such as `layers.0.weight`; what is no array is left out."""
    leaves: dict[str, Any] = dict(tree_flatten(tree))
    return {name: leaf for name, leaf in leaves.items() if isinstance(leaf, mx.array)}


def arrays_of(tree: Any) -> list[mx.array]:
    """The arrays of a tree, in order."""
    return list(named_arrays(tree).values())


def are_finite(tree: Any) -> bool:
    """Whether every array of a tree is finite everywhere."""
    return all(mx.isfinite(array).all().item() for array in arrays_of(tree))


def scalar(array: mx.array) -> float:
    """The value of an array of one element."""
    return cast(float, array.item())
