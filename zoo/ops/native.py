"""Softmax attention in compiled tiles (the folder `native/`), driven by a pattern's block map.

What it computes, and how, is what `zoo.ops.tiled` says. The map holds the tiles in which the pattern allows anything,
row after row, and the masks of those in which it does not allow everything, equal masks once: of a causal or a windowed
pattern there are a few, whatever the length.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim, T queries of a tile, U
keys of a tile.
"""

import functools
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.ops.patterns import Pattern, allowed_pairs, batched, everything
from zoo.ops.softmax import ScoreSpec
from zoo.runtime.native import native_kernels

# Vectors of the widest instruction set.
_LANES = 16
_QUERY_TILE = 64
# Of full attention, where larger tiles cost least; other patterns leave out more in smaller ones.
_LONG_KEY_TILE, _KEY_TILE, _LONG = 64, 32, 1024


def native(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Softmax attention in compiled tiles: float32 inside, memory linear in L and S, forward and backward.

    Args:
        q_BNLH: Queries.
        k_BKSH: Keys; K divides N.
        v_BKSH: Values.
        spec: Scale, mask, pattern, bias and virtual key; nothing else that changes the scores.

    Returns:
        [B, N, L, H] in the dtype of q; zeros where a query may attend to nothing.

    Raises:
        UserError: If the package of kernels is not there, or arrays are on a GPU.
    """
    kernels = native_kernels()
    L, S = q_BNLH.shape[2], k_BKSH.shape[2]
    if L == 0 or S == 0:
        return mx.zeros_like(q_BNLH)
    more: dict[str, Any] = {"sinks": spec.sink_logits(q_BNLH.shape[1])}
    if isinstance(spec.mask.offset, int) and spec.key_positions is None:
        tiles = _tiles(spec.pattern, spec.mask.causal, L, S, spec.mask.offset)
        more |= {"lengths": spec.mask.lengths_B, "segments": spec.mask.segments_BL}
    else:
        # Where the positions are data, so is the mask.
        tiles = _tiles(everything, False, L, S, 0)
        more["dense"] = spec.visible(L, S)[:, 0].swapaxes(-1, -2)
    if spec.slopes_N is not None:
        more["slopes"] = spec.slopes_N
        more["query_positions"] = batched(spec.mask.positions(L))
        more["key_positions"] = batched(spec.resolved_key_positions(S))
    arrays = (array.astype(mx.float32) for array in (q_BNLH, k_BKSH, v_BKSH))
    y_BNLH: mx.array = kernels.attention(*arrays, scale=spec.scale, **tiles, **more)
    return y_BNLH.astype(q_BNLH.dtype)


@functools.lru_cache(maxsize=64)
def _tiles(pattern: Pattern, causal: bool, L: int, S: int, offset: int) -> dict[str, Any]:
    """What the kernels take of a pattern; queries have the positions from `offset` on."""
    T = min(_QUERY_TILE, -(-L // _LANES) * _LANES)
    U = _LONG_KEY_TILE if pattern is everything and S >= _LONG else _KEY_TILE
    starts, columns, kinds, masks = [0], list[np.ndarray](), list[np.ndarray](), dict[bytes, int]()
    key = np.arange(S, dtype=np.int32)
    num_columns = -(-S // U)
    for first in range(0, L, T):
        query = np.arange(first, min(L, first + T), dtype=np.int32) + np.int32(offset)
        reach = min(S, int(query[-1]) + 1) if causal else S
        pairs = np.asarray(allowed_pairs(pattern, query[None, :], key[:reach, None], causal=causal))
        # [columns, U, T]: hidden beyond the last key and the last query.
        padded = np.zeros((num_columns * U, T), dtype=np.uint8)
        padded[:reach, : len(query)] = pairs
        tiles = padded.reshape(num_columns, U, T)
        counts = np.count_nonzero(tiles, axis=(1, 2))
        there = np.flatnonzero(counts)
        keys_of = np.minimum(U, S - there * U)
        whole = counts[there] == keys_of * len(query)
        columns.append(there.astype(np.int32))
        kinds.append(
            np.array(
                [
                    0 if full else masks.setdefault(tiles[column].tobytes(), len(masks) + 1)
                    for column, full in zip(there, whole, strict=True)
                ],
                dtype=np.int32,
            )
        )
        starts.append(starts[-1] + len(there))
    stored = b"".join(masks) or bytes(U * T)
    return {
        "query_tile": T,
        "key_tile": U,
        "row_starts": mx.array(np.array(starts, dtype=np.int32)),
        "columns": mx.array(np.concatenate(columns)),
        "kinds": mx.array(np.concatenate(kinds)),
        "masks": mx.array(np.frombuffer(stored, dtype=np.uint8).reshape(-1, U, T)),
    }
