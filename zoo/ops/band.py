"""Sliding-window attention in contiguous chunks, with linear work and memory, optionally with attention sinks.

Chunks are as long as the window, so a causal query at place r of its chunk sees the places 0 … r of its own chunk
and the places r+1 … C-1 of the chunk before: each place exactly once. The two triangles therefore fold into one
square of scores, in which no exponential is wasted:

    s[r, c] = q_r · (k_own[c] if c <= r else k_previous[c])

A bidirectional query sees its whole chunk besides, and the previous and the next chunk fold likewise, with an
unused diagonal. Without the fold a chunk pays for twice the scores (own + previous, as in Beltagy et al.,
"Longformer", https://arxiv.org/abs/2004.05150, section 3.1 "sliding chunks").

Letters: B batch, L length, N query heads, K key/value heads, H head_dim, C queries of a chunk, T chunks.
"""

import dataclasses

import mlx.core as mx
import numpy as np

from zoo.ops import softmax
from zoo.ops.chunks import (
    HIDDEN,
    Chunks,
    ScoreBlock,
    attend,
    chunk_positions,
    first_keys_block,
    grouped_queries,
    key_segments,
    segment_chunks,
)
from zoo.ops.patterns import everything
from zoo.ops.softmax import ScoreSpec

# Below this a matrix product costs more to start than to do; larger chunks than the window waste scores instead.
SMALLEST_CHUNK = 8


def chunked(
    q_BNLH: mx.array,
    k_BKLH: mx.array,
    v_BKLH: mx.array,
    spec: ScoreSpec,
    *,
    window_size: int,
    num_sinks: int = 0,
) -> mx.array:
    """Attention over keys less than `window_size` away and over the first `num_sinks` tokens.

    Args:
        q_BNLH: Queries.
        k_BKLH: Keys; K divides N.
        v_BKLH: Values.
        spec: Scale, mask, the pattern that says the same as the two sizes, and bias.
        window_size: Keys that a causal query sees, itself included.
        num_sinks: First tokens that every later query sees.

    Returns:
        [B, N, L, H]. Cached decoding and texts hardly longer than the window take the dense path.
    """
    L = q_BNLH.shape[2]
    if not spec.is_self_attention(L, k_BKLH.shape[2]):
        return softmax.fused(q_BNLH, k_BKLH, v_BKLH, spec)
    if window_size >= L:
        return softmax.fused(q_BNLH, k_BKLH, v_BKLH, dataclasses.replace(spec, pattern=everything))
    size = max(window_size, SMALLEST_CHUNK)
    columns = (size if spec.mask.causal else 2 * size) + num_sinks
    if -(-L // size) * size * columns >= L * L:
        return softmax.fused(q_BNLH, k_BKLH, v_BKLH, spec)
    q_BKGTCH = grouped_queries(q_BNLH, k_BKLH.shape[1], size, spec.scale)
    blocks = _window_blocks(q_BKGTCH, k_BKLH, v_BKLH, spec)
    if num_sinks > 0:
        # The folded block holds the last `size` keys, sinks among them included.
        query = chunk_positions(q_BKGTCH.shape[3] * size, size)[:, :, None]
        sink = np.arange(num_sinks)[None, None]
        outside = np.where(query - sink >= size, sink, HIDDEN)
        blocks.append(first_keys_block(q_BKGTCH, k_BKLH, v_BKLH, outside, spec))
    return attend(blocks, spec, L, v_BKLH.dtype)


def _window_blocks(q_BKGTCH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: ScoreSpec) -> list[ScoreBlock]:
    """The folded block and, for bidirectional attention, the query's own chunk."""
    size, length = q_BKGTCH.shape[4], k_BKLH.shape[2]
    after = 0 if spec.mask.causal else 1
    keys = Chunks(k_BKLH, size, before=1, after=after)
    values = Chunks(v_BKLH, size, before=1, after=after)
    segments = segment_chunks(spec, size, before=1, after=after)
    fold = _Fold(q_BKGTCH, keys, values, segments)
    if spec.mask.causal:
        return [fold.block(length, lower=0, upper=-1)]
    own = values.shifted(0)
    own_block = ScoreBlock(
        scores=q_BKGTCH @ keys.shifted(0).swapaxes(-1, -2),
        key_positions=chunk_positions(length, size)[:, None],
        read=lambda weights: weights @ own,
        key_segments=key_segments(segments, 0),
    )
    # On the diagonal stands a key one chunk ahead, which the window excludes.
    return [own_block, fold.block(length, lower=1, upper=-1)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Fold:
    """Two chunks of keys in one square of scores: one below the diagonal, the other above it."""

    q_BKGTCH: mx.array
    keys: Chunks
    values: Chunks
    segments: Chunks | None

    def block(self, length: int, *, lower: int, upper: int) -> ScoreBlock:
        """Folds the chunk `lower` further on, diagonal included, with the chunk `upper` further on."""
        size = self.keys.size
        below = np.tri(size, dtype=bool)
        is_lower = mx.array(below)
        lower_positions = chunk_positions(length, size, lower)[:, None]
        upper_positions = chunk_positions(length, size, upper)[:, None]
        v_lower, v_upper = self.values.shifted(lower), self.values.shifted(upper)

        def read(weights: mx.array) -> mx.array:
            lower_weights = weights * is_lower.astype(weights.dtype)
            return lower_weights @ v_lower + (weights - lower_weights) @ v_upper

        lower_scores = self.q_BKGTCH @ self.keys.shifted(lower).swapaxes(-1, -2)
        upper_scores = self.q_BKGTCH @ self.keys.shifted(upper).swapaxes(-1, -2)
        lower_segments, upper_segments = key_segments(self.segments, lower), key_segments(self.segments, upper)
        folded_segments = None
        if lower_segments is not None and upper_segments is not None:
            folded_segments = mx.where(is_lower, lower_segments, upper_segments)
        return ScoreBlock(
            scores=mx.where(is_lower, lower_scores, upper_scores),
            key_positions=np.where(below, lower_positions, upper_positions),
            read=read,
            key_segments=folded_segments,
        )
