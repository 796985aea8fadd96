"""Local attention without gathers: queries in contiguous chunks, each with a few blocks of keys, under one softmax.

A mechanism says which blocks of keys a chunk of queries reads (`ScoreBlock`); `attend` normalises their scores
jointly:

    y_i = (sum over blocks b of sum_j e^(s_bij - m_i) v_bj) / (sum over blocks b of sum_j e^(s_bij - m_i))

Scores exist only for the blocks, so work and memory are linear in the length. What the blocks hold beyond the
pattern is masked in the scores; keys are never padded with large numbers.

Letters: B batch, L length, N query heads, K key/value heads, G = N / K queries per key/value head, H head_dim,
C queries of a chunk, T chunks, W keys of a block.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from zoo.ops.exponential import exp
from zoo.ops.patterns import allowed_pairs
from zoo.ops.softmax import ScoreSpec

HIDDEN = -1
_MASKED = mx.finfo(mx.float32).min


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreBlock:
    """A block of keys for every chunk of queries.

    Attributes:
        scores: Products of scaled queries and keys, [B, K, G, T, C, W].
        key_positions: Which key stands behind each score, integer [T or 1, C or 1, W]; `HIDDEN` where none does, or
            where another block holds it already.
        read: Weights [B, K, G, T, C, W] -> weighted sums of the values, [B, K, G, T, C, H].
        key_segments: Document of each key, [B, T or 1, C or 1, W]; None without packed documents.
    """

    scores: mx.array
    key_positions: np.ndarray
    read: Callable[[mx.array], mx.array]
    key_segments: mx.array | None


class Chunks:
    """An array cut into chunks along its length, and the same chunks shifted: each token's neighbours as views."""

    def __init__(self, x_BXLY: mx.array, size: int, *, before: int, after: int) -> None:
        """Pads once, with zeros, to whole chunks and `before` and `after` more of them.

        Args:
            x_BXLY: Tokens on axis 2.
            size: C, tokens of a chunk.
            before: Furthest chunk before a token's own that will be asked for.
            after: Furthest chunk after it.
        """
        self.size = size
        self.count = -(-x_BXLY.shape[2] // size)
        self._before = before
        back = (self.count + after) * size - x_BXLY.shape[2]
        widths = [(0, 0), (0, 0), (before * size, back), (0, 0)]
        self._padded = mx.pad(x_BXLY, widths) if before or back else x_BXLY

    def shifted(self, chunks: int) -> mx.array:
        """For each chunk the one `chunks` further on, [B, X, 1, T, C, Y]; negative for earlier ones."""
        B, X, _, Y = self._padded.shape
        start = (self._before + chunks) * self.size
        part = self._padded[:, :, start : start + self.count * self.size]
        return part.reshape(B, X, 1, self.count, self.size, Y)


def segment_chunks(spec: ScoreSpec, size: int, *, before: int, after: int) -> Chunks | None:
    """The document numbers in chunks, if there are any."""
    if spec.mask.segments_BL is None:
        return None
    return Chunks(spec.mask.segments_BL[:, None, :, None], size, before=before, after=after)


def key_segments(segments: Chunks | None, chunks: int) -> mx.array | None:
    """Document of each key of the chunk `chunks` further on, [B, T, 1, C]."""
    return None if segments is None else segments.shifted(chunks)[:, 0, 0, :, None, :, 0]


def chunk_positions(length: int, size: int, chunks: int = 0) -> np.ndarray:
    """Positions of the tokens `chunks` chunks further on, int [T, C]; `HIDDEN` outside the text."""
    position = np.arange(-(-length // size) * size).reshape(-1, size) + chunks * size
    return np.where((position >= 0) & (position < length), position, HIDDEN)


def grouped_queries(q_BNLH: mx.array, K: int, size: int, scale: float) -> mx.array:
    """Scaled queries in chunks, [B, K, G, T, C, H]."""
    B, N, _, H = q_BNLH.shape
    chunks = Chunks(q_BNLH * scale, size, before=0, after=0).shifted(0)
    return chunks.reshape(B, K, N // K, chunks.shape[3], size, H)


def first_keys_block(
    q_BKGTCH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, key_positions: np.ndarray, spec: ScoreSpec
) -> ScoreBlock:
    """The block of the text's first tokens, which every chunk reads.

    Args:
        q_BKGTCH: From `grouped_queries`.
        k_BKLH: Keys of the whole text.
        v_BKLH: Values of the whole text.
        key_positions: Integer [T or 1, C or 1, W] of W first tokens.
        spec: Scale, mask, pattern and bias.
    """
    B, K, G, T, C, H = q_BKGTCH.shape
    W = key_positions.shape[-1]
    k_BKWH, v_BKWH = k_BKLH[:, :, :W], v_BKLH[:, :, :W]

    def read(weights: mx.array) -> mx.array:
        return (weights.reshape(B, K, G * T * C, W) @ v_BKWH).reshape(B, K, G, T, C, H)

    scores = q_BKGTCH.reshape(B, K, G * T * C, H) @ k_BKWH.swapaxes(-1, -2)
    segments_BL = spec.mask.segments_BL
    return ScoreBlock(
        scores=scores.reshape(B, K, G, T, C, W),
        key_positions=key_positions,
        read=read,
        key_segments=None if segments_BL is None else segments_BL[:, None, None, :W],
    )


def attend(blocks: Sequence[ScoreBlock], spec: ScoreSpec, length: int, dtype: mx.Dtype) -> mx.array:
    """One softmax over all blocks, in float32.

    Args:
        blocks: Together they hold every key that the pattern allows, each once.
        spec: Mask, pattern and bias; its positions are 0 … L-1 for queries and keys.
        length: L.
        dtype: Of the values, and of the result.

    Returns:
        [B, N, L, H].
    """
    B, K, G, T, C, _ = blocks[0].scores.shape
    query_TC = chunk_positions(T * C, C)
    scores = [_masked(block, spec, query_TC) for block in blocks]
    peak = functools.reduce(mx.maximum, [part.max(axis=-1, keepdims=True) for part in scores])
    # Softmax does not change when all scores of a query move, so the shift needs no gradient.
    peak = mx.stop_gradient(peak)
    weights = [exp(part - peak) for part in scores]
    total = _sum([part.sum(axis=-1, keepdims=True) for part in weights])
    y = _sum([block.read(part.astype(dtype)) for block, part in zip(blocks, weights, strict=True)])
    y_BNLH = (y / total).astype(dtype).reshape(B, K * G, T * C, -1)
    return y_BNLH[:, :, :length]


def _sum(parts: Sequence[mx.array]) -> mx.array:
    return functools.reduce(mx.add, parts)


def _masked(block: ScoreBlock, spec: ScoreSpec, query_TC: np.ndarray) -> mx.array:
    """Scores of a block in float32, with bias, masked where the pattern or the mask forbids."""
    scores = block.scores.astype(mx.float32)
    query, key = query_TC[:, :, None], block.key_positions
    if spec.slopes_N is not None:
        _, K, G = scores.shape[:3]
        distance_TCW = mx.array(np.abs(query - key).astype(np.float32))
        scores = scores - spec.slopes_N.astype(mx.float32).reshape(K, G, 1, 1, 1) * distance_TCW
    static = np.asarray(allowed_pairs(spec.pattern, query, key, causal=spec.mask.causal))
    allowed = None if static.all() else mx.array(static)[None]
    # Where the future is hidden, a valid query sees valid keys only.
    if spec.mask.lengths_B is not None and not spec.mask.causal:
        inside = mx.array(key)[None] < spec.mask.lengths_B[:, None, None, None]
        allowed = inside if allowed is None else allowed & inside
    if block.key_segments is not None and spec.mask.segments_BL is not None:
        T, C = query_TC.shape
        padded = mx.pad(spec.mask.segments_BL, [(0, 0), (0, T * C - spec.mask.segments_BL.shape[1])])
        same = padded.reshape(-1, T, C, 1) == block.key_segments
        allowed = same if allowed is None else allowed & same
    return scores if allowed is None else mx.where(allowed[:, None, None], scores, _MASKED)
