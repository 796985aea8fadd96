"""Sliding-window attention by gathering each query's keys: slow on purpose, the published forms made correct.

Every query gets its own copy of its window, W keys and values, so memory is L · W · H and the arithmetic intensity
of a matrix product is gone. AttnBench published the first form, with N slices and a stack; it padded the keys with
-1e9, which wins the softmax wherever the query's components sum below zero. Here places outside the text are masked
in the scores.

Letters: B batch, L length, N query heads, K key/value heads, G = N / K queries per key/value head, H head_dim,
W keys of a window: `window_size`, or 2 · window_size - 1 where the future is visible.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from zoo.ops import softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import allowed_pairs
from zoo.ops.softmax import ScoreSpec

# (array [B, X, L, Y], index [L, W] of the token at each place of each window) -> [B, X, L, W, Y]
_Gather = Callable[[mx.array, np.ndarray], mx.array]


def gather_slices(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: ScoreSpec, *, window_size: int
) -> mx.array:
    """One slice of keys and one of values for each query, then a stack.

    Args:
        q_BNLH: Queries.
        k_BKLH: Keys; K divides N.
        v_BKLH: Values.
        spec: Scale, mask, the pattern that says the same as `window_size`, and bias.
        window_size: Keys that a causal query sees, itself included.

    Returns:
        [B, N, L, H]. Cached decoding takes the dense path.
    """
    return _windowed(q_BNLH, k_BKLH, v_BKLH, spec, window_size, _take_slices)


def gather_index(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: ScoreSpec, *, window_size: int
) -> mx.array:
    """One indexed gather of keys and one of values; arguments and result as of `gather_slices`."""
    return _windowed(q_BNLH, k_BKLH, v_BKLH, spec, window_size, _take_index)


def _take_slices(x_BXLY: mx.array, index_LW: np.ndarray) -> mx.array:
    L, W = index_LW.shape
    before, after = -int(index_LW[0, 0]), int(index_LW[-1, -1]) - (L - 1)
    padded = mx.pad(x_BXLY, [(0, 0), (0, 0), (before, after), (0, 0)])
    return mx.stack([padded[:, :, start : start + W] for start in range(L)], axis=2)


def _take_index(x_BXLY: mx.array, index_LW: np.ndarray) -> mx.array:
    inside = np.clip(index_LW, 0, x_BXLY.shape[2] - 1).astype(np.int32)
    return mx.take(x_BXLY, mx.array(inside), axis=2)


def _windowed(
    q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: ScoreSpec, window_size: int, gather: _Gather
) -> mx.array:
    B, N, L, H = q_BNLH.shape
    K = k_BKLH.shape[1]
    if not spec.is_self_attention(L, k_BKLH.shape[2]):
        return softmax.fused(q_BNLH, k_BKLH, v_BKLH, spec)
    # Further back there is nothing to gather.
    window_size = min(window_size, L)
    last = 0 if spec.mask.causal else window_size - 1
    index_LW = np.arange(L)[:, None] + np.arange(1 - window_size, last + 1)[None]
    k_BKLWH, v_BKLWH = gather(k_BKLH, index_LW), gather(v_BKLH, index_LW)
    q_BKLGH = (q_BNLH * spec.scale).reshape(B, K, N // K, L, H).swapaxes(2, 3)
    scores_BKLGW = (q_BKLGH @ k_BKLWH.swapaxes(-1, -2)).astype(mx.float32)
    if spec.slopes_N is not None:
        distance_LW = mx.array(np.abs(np.arange(L)[:, None] - index_LW).astype(np.float32))
        slopes = spec.slopes_N.astype(mx.float32).reshape(K, 1, N // K, 1)
        scores_BKLGW = scores_BKLGW - slopes * distance_LW[:, None]
    allowed_BLW = _allowed(spec, index_LW)
    scores_BKLGW = mx.where(allowed_BLW[:, None, :, None], scores_BKLGW, mx.finfo(mx.float32).min)
    weights_BKLGW = mx.softmax(scores_BKLGW, axis=-1).astype(v_BKLH.dtype)
    return (weights_BKLGW @ v_BKLWH).swapaxes(2, 3).reshape(B, N, L, H)


def _allowed(spec: ScoreSpec, index_LW: np.ndarray) -> mx.array:
    """Which places of its window a query may attend to, bool [1 or B, L, W]."""
    L = index_LW.shape[0]
    mask: MaskSpec = spec.mask
    inside = index_LW < L
    static = inside & allowed_pairs(spec.pattern, np.arange(L)[:, None], index_LW, causal=mask.causal)
    allowed = mx.array(static)[None]
    if mask.lengths_B is not None:
        allowed = allowed & (mx.array(index_LW)[None] < mask.lengths_B[:, None, None])
    if mask.segments_BL is not None:
        key_segments = _take_index(mask.segments_BL[:, None, :, None], index_LW)[:, 0, :, :, 0]
        allowed = allowed & (mask.segments_BL[:, :, None] == key_segments)
    return allowed
