"""Block-sparse attention as AttnBench published it: the average of two separate softmaxes.

    y_i = 1/2 * (softmax attention over the keys of i's own block) + 1/2 * (softmax attention over the global keys)

With one global token this is exactly 1/2 * local + 1/2 * v_0, whatever the query. Both parts see the future. It is
kept because the published speed was measured on it; `zoo.ops.block_sparse` is the sound form, with one softmax.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.ops import softmax
from zoo.ops.chunks import Chunks, ScoreBlock, attend, chunk_positions, first_keys_block, grouped_queries
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern
from zoo.ops.softmax import ScoreSpec


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LegacySpec:
    """Everything besides q, k and v.

    Attributes:
        scale: Factor on q·k, usually head_dim ** -0.5.
        mask: Padding; neither causal nor with documents.
        block_size: Tokens of a block.
        num_global_tokens: First tokens of the text, at least 1.
    """

    scale: float
    mask: MaskSpec
    block_size: int
    num_global_tokens: int


def same_block(query_index: Any, key_index: Any, block_size: int) -> Any:
    """Pattern of the local softmax."""
    return query_index // block_size == key_index // block_size


def is_global(query_index: Any, key_index: Any, num_global_tokens: int) -> Any:
    """Pattern of the global softmax."""
    return (query_index == query_index) & (key_index < num_global_tokens)


def reference(q_BNLH: np.ndarray, k_BKLH: np.ndarray, v_BKLH: np.ndarray, spec: LegacySpec) -> np.ndarray:
    """The two softmaxes, dense and in float64 NumPy; arguments and result as of `blocked`."""
    parts = []
    for pattern in (BoundPattern(same_block, spec.block_size), BoundPattern(is_global, spec.num_global_tokens)):
        score_spec = ScoreSpec(scale=spec.scale, mask=spec.mask, pattern=pattern)
        parts.append(softmax.reference(q_BNLH, k_BKLH, v_BKLH, score_spec))
    return 0.5 * parts[0] + 0.5 * parts[1]


def blocked(q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: LegacySpec) -> mx.array:
    """The average of both softmaxes, with linear work and memory.

    Args:
        q_BNLH: Queries.
        k_BKLH: Keys; K divides N.
        v_BKLH: Values.
        spec: Scale, mask and sizes.

    Returns:
        [B, N, L, H].
    """
    L = q_BNLH.shape[2]
    size = min(spec.block_size, L)
    q_BKGTCH = grouped_queries(q_BNLH, k_BKLH.shape[1], size, spec.scale)
    v_BKGTCH = Chunks(v_BKLH, size, before=0, after=0).shifted(0)
    own = ScoreBlock(
        scores=q_BKGTCH @ Chunks(k_BKLH, size, before=0, after=0).shifted(0).swapaxes(-1, -2),
        key_positions=chunk_positions(L, size)[:, None],
        read=lambda weights: weights @ v_BKGTCH,
        key_segments=None,
    )
    score_spec = ScoreSpec(scale=spec.scale, mask=spec.mask)
    first = np.arange(min(L, spec.num_global_tokens))[None, None]
    shared = first_keys_block(q_BKGTCH, k_BKLH, v_BKLH, first, score_spec)
    local_BNLH, global_BNLH = (attend([block], score_spec, L, v_BKLH.dtype) for block in (own, shared))
    return 0.5 * local_BNLH + 0.5 * global_BNLH
