"""How much useful work a call is, and what its graph consists of.

A multiply-add counts as 2. A backward pass counts as twice its forward pass: each matrix product has two gradients,
each as large as itself. What an implementation recomputes or masks away is not useful and counts as nothing.

Letters: D hidden.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from eval.graph import operations
from eval.rows import Work
from eval.speed.trees import arrays_of
from zoo.attention import LayerShape, VariantConfig, build_attention

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
        None if neither.
    """
    names = operations(arrays_of(outputs))
    fused = any(name.startswith("ScaledDotProductAttention") for name in names)
    return Work(
        useful_flops=useful_flops,
        tokens=tokens,
        graph_nodes=sum(names.values()),
        attention_path="fused" if fused else "fallback" if "Softmax" in names else None,
    )


def mixing_flops(variant: VariantConfig, shape: LayerShape, *, length: int) -> int:
    """Useful operations of the layer's forward pass for one row, its projections left out.

    Projections grow with D and mixing does not, so the layer's own count at two widths tells them apart. What a layer
    does to its projections before they mix (the short convolutions of the gated delta rule) counts as mixing.
    """
    narrow, wide = [
        build_attention(variant, dataclasses.replace(shape, hidden_size=width), 0).flops(
            query_length=length, key_length=length
        )
        for width in (shape.hidden_size, 2 * shape.hidden_size)
    ]
    return 2 * narrow - wide
