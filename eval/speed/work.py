"""How much useful work a call is, and what its graph consists of.

A multiply-add counts as 2. A backward pass counts as twice its forward pass: each matrix product has two gradients,
each as large as itself. What an implementation recomputes or masks away is not useful and counts as nothing.
"""

import collections
import io
import re
from collections.abc import Mapping
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from eval.rows import Work

# Forward passes that a call is worth.
FORWARDS: Mapping[str, int] = {"forward": 1, "forward_backward": 3, "step": 3, "prefill": 1, "decode": 1}


def work_of(outputs: Any, *, useful_flops: int | None, tokens: int | None) -> Work:
    """The work of a call, with the nodes of its graph.

    Args:
        outputs: What the uncompiled call returned, not evaluated: arrays in lists, tuples or mappings.
        useful_flops: Of the call.
        tokens: That the call processes.

    Returns:
        With `attention_path` "fused" if the graph holds a fused kernel, "fallback" if it holds a softmax instead, and
        None if neither: `mx.fast.scaled_dot_product_attention` decides for itself whether it has a kernel for a call.
    """
    names = operations(arrays_of(outputs))
    fused = any(name.startswith("ScaledDotProductAttention") for name in names)
    return Work(
        useful_flops=useful_flops,
        tokens=tokens,
        graph_nodes=sum(names.values()),
        attention_path="fused" if fused else "fallback" if "Softmax" in names else None,
    )


def operations(outputs: mx.array | list[mx.array]) -> collections.Counter[str]:
    """Counts the operations that evaluating the outputs would run.

    Args:
        outputs: Arrays not evaluated yet; what was evaluated before them does not count.

    Returns:
        Name of an operation, in MLX's words, to the number of its nodes.
    """
    text = io.StringIO()
    mx.export_to_dot(text, *([outputs] if isinstance(outputs, mx.array) else outputs))
    return collections.Counter(re.findall(r'label\s*=\s*"(\w+)[^"]*", shape=rectangle', text.getvalue()))


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
