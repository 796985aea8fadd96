"""What MLX is about to run: the operations of an unevaluated graph, and whether attention goes through a fused kernel.

`mx.fast.scaled_dot_product_attention` decides for itself whether it has a kernel for a call; otherwise it becomes a
softmax between two matrix products, with the score matrix in memory. Timings of one do not speak for the other.
"""

import collections
import io
import re
from typing import Literal

import mlx.core as mx

AttentionPath = Literal["fused", "fallback"]

_FUSED, _UNFUSED = "ScaledDotProductAttention", "Softmax"


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


def attention_path(outputs: mx.array | list[mx.array]) -> AttentionPath:
    """How the attention in a graph is computed.

    Raises:
        ValueError: If there is no softmax attention in the graph.
    """
    names = operations(outputs)
    if any(name.startswith(_FUSED) for name in names):
        return "fused"
    if _UNFUSED in names:
        return "fallback"
    raise ValueError(f"the graph holds no softmax attention; its operations are {', '.join(sorted(names))}")


def fused_attention_paths(*, length: int, head_dim: int, dtype: mx.Dtype) -> dict[str, AttentionPath]:
    """Which path MLX's fused attention takes on this device, causal, 8 heads.

    Args:
        length: Tokens.
        head_dim: Width of a head.
        dtype: Of queries, keys and values.

    Returns:
        `forward` and `gradient`, the latter for forward and backward together.
    """
    q, k, v = (mx.zeros((1, 8, length, head_dim), dtype=dtype) for _ in range(3))
    mx.eval(q, k, v)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=head_dim**-0.5, mask="causal")

    gradients = mx.grad(lambda *arrays: attend(*arrays).sum(), argnums=(0, 1, 2))(q, k, v)
    return {"forward": attention_path(attend(q, k, v)), "gradient": attention_path(list(gradients))}
