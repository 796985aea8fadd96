"""Block-sparse attention in contiguous blocks: one softmax over global tokens, own block and neighbouring blocks.

A query of block b reads the first `num_global_tokens` keys, the blocks b - num_previous_blocks … b, and, where the
future is visible, as many blocks after it. No key is gathered or copied: a neighbouring block is the same array,
shifted by whole blocks. A global key that also lies in one of those blocks is counted once, as a global key.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

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
from zoo.ops.softmax import ScoreSpec


def blocked(
    q_BNLH: mx.array,
    k_BKLH: mx.array,
    v_BKLH: mx.array,
    spec: ScoreSpec,
    *,
    block_size: int,
    num_global_tokens: int,
    num_previous_blocks: int,
) -> mx.array:
    """Block-sparse attention with linear work and memory.

    Args:
        q_BNLH: Queries.
        k_BKLH: Keys; K divides N.
        v_BKLH: Values.
        spec: Scale, mask, the pattern that says the same as the three sizes, and bias.
        block_size: Tokens of a block.
        num_global_tokens: First tokens that every later query sees.
        num_previous_blocks: Neighbouring blocks that a query sees on each visible side.

    Returns:
        [B, N, L, H]. Cached decoding and texts of few blocks take the dense path.
    """
    L = q_BNLH.shape[2]
    before = num_previous_blocks
    after = 0 if spec.mask.causal else num_previous_blocks
    columns = (before + 1 + after) * block_size + num_global_tokens
    padded_length = -(-L // block_size) * block_size
    if not spec.is_self_attention(L, k_BKLH.shape[2]) or padded_length * columns >= L * L:
        return softmax.fused(q_BNLH, k_BKLH, v_BKLH, spec)
    q_BKGTCH = grouped_queries(q_BNLH, k_BKLH.shape[1], block_size, spec.scale)
    keys = Chunks(k_BKLH, block_size, before=before, after=after)
    values = Chunks(v_BKLH, block_size, before=before, after=after)
    segments = segment_chunks(spec, block_size, before=before, after=after)
    blocks = [
        _neighbour(q_BKGTCH, keys, values, segments, (shift, num_global_tokens, L))
        for shift in range(-before, after + 1)
    ]
    if num_global_tokens > 0:
        first = np.arange(num_global_tokens)[None, None]
        blocks.append(first_keys_block(q_BKGTCH, k_BKLH, v_BKLH, first, spec))
    return attend(blocks, spec, L, v_BKLH.dtype)


def _neighbour(
    q_BKGTCH: mx.array, keys: Chunks, values: Chunks, segments: Chunks | None, place: tuple[int, int, int]
) -> ScoreBlock:
    """The block `shift` further on; `place` is (shift, num_global_tokens, length)."""
    shift, num_global_tokens, length = place
    position = chunk_positions(length, keys.size, shift)[:, None]
    v_BKGTCH = values.shifted(shift)
    return ScoreBlock(
        scores=q_BKGTCH @ keys.shifted(shift).swapaxes(-1, -2),
        key_positions=np.where(position >= num_global_tokens, position, HIDDEN),
        read=lambda weights: weights @ v_BKGTCH,
        key_segments=key_segments(segments, shift),
    )
