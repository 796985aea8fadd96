"""Sparse attention as one small function: `allowed(query_index, key_index) -> bool` on broadcast integer arrays.

From such a pattern come the dense mask, the block map that lets tiled kernels skip empty blocks, and the count
of useful scores. A pattern uses only operators (`-`, `//`, `<`, `&`, `abs`, …), so it accepts NumPy and MLX
arrays alike.

Letters: B batch, L query length, S key length, N query heads.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.ops.masks import MaskSpec

Pattern = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class BoundPattern:
    """A mechanism's `allowed(query_index, key_index, config)` with its config filled in; hashable, so cacheable."""

    allowed: Callable[[Any, Any, Any], Any]
    config: Any

    def __call__(self, query_index: Any, key_index: Any) -> Any:
        return self.allowed(query_index, key_index, self.config)


def everything(query_index: Any, key_index: Any) -> Any:
    """The pattern of full attention: every key is allowed."""
    return (query_index == query_index) & (key_index == key_index)


def dense_mask(
    pattern: Pattern,
    mask: MaskSpec,
    query_positions: mx.array,
    key_positions: mx.array,
) -> mx.array:
    """Materialises what each query may attend to.

    Args:
        pattern: The mechanism's own restriction.
        mask: Causality, padding and documents.
        query_positions: int32 [L] or [B, L].
        key_positions: int32 [S] or [B, S]; a negative position marks an empty slot of a cache.

    Returns:
        bool, [1 or B, 1, L, S]; True means "may attend".
    """
    query = batched(query_positions)[:, :, None]
    key = batched(key_positions)[:, None, :]
    allowed: mx.array = allowed_pairs(pattern, query, key, causal=mask.causal)
    if mask.lengths_B is not None:
        allowed = allowed & (key < mask.lengths_B[:, None, None])
    if mask.segments_BL is not None:
        allowed = allowed & (mask.segments_BL[:, :, None] == mask.segments_BL[:, None, :])
    return allowed[:, None]


def allowed_pairs(pattern: Pattern, query_index: Any, key_index: Any, *, causal: bool) -> Any:
    """What the pattern and causality allow; a negative key index marks an empty slot, which nobody may read.

    Args:
        pattern: The mechanism's own restriction.
        query_index: Integer array, NumPy or MLX.
        key_index: Integer array that broadcasts with it.
        causal: Whether keys after the query are hidden.

    Returns:
        Boolean array of the broadcast shape (of the key's shape where the pattern ignores the query).
    """
    allowed = pattern(query_index, key_index) & (key_index >= 0)
    return allowed & (key_index <= query_index) if causal else allowed


def batched(positions: mx.array) -> mx.array:
    """Positions with an axis for the batch, [1 or B, L]."""
    return positions[None] if positions.ndim == 1 else positions


def numpy_mask(pattern: Pattern, *, causal: bool, query_length: int, key_length: int) -> np.ndarray:
    """The pattern as a NumPy array, for counting, drawing and tests.

    The last query is aligned with the last key, as in a decoding step.

    Returns:
        bool [L, S].
    """
    query = np.arange(key_length - query_length, key_length)[:, None]
    key = np.arange(key_length)[None, :]
    allowed = np.broadcast_to(np.asarray(pattern(query, key), dtype=bool), (query_length, key_length))
    return allowed & (key <= query) if causal else allowed


@functools.lru_cache(maxsize=1024)
def count_scores(pattern: Pattern, *, causal: bool, query_length: int, key_length: int) -> int:
    """How many query-key pairs the pattern allows: the useful scores of one head of one row."""
    total = 0
    # In strips of queries, so that counting at length 100,000 needs megabytes and not gigabytes.
    strip = max(1, 4_000_000 // max(1, key_length))
    for start in range(0, query_length, strip):
        stop = min(query_length, start + strip)
        last_key = key_length - query_length + stop
        keys = last_key if causal else key_length
        query = np.arange(key_length - query_length + start, last_key)[:, None]
        key = np.arange(keys)[None, :]
        allowed = np.broadcast_to(np.asarray(pattern(query, key), dtype=bool), (stop - start, keys))
        total += int(np.count_nonzero(allowed & (key <= query) if causal else allowed))
    return total


@functools.lru_cache(maxsize=256)
def block_map(
    pattern: Pattern,
    *,
    causal: bool,
    query_length: int,
    key_length: int,
    query_tile: int,
    key_tile: int,
    query_start: int = 0,
) -> np.ndarray:
    """Which tiles of the score matrix hold no, some or only allowed pairs.

    Args:
        pattern: A hashable pattern (a function, or one bound to a frozen config).
        causal: Whether keys after the query are hidden.
        query_length: L.
        key_length: S; keys start at position 0.
        query_tile: Queries in a tile.
        key_tile: Keys in a tile.
        query_start: Position of the first query.

    Returns:
        int8 [ceil(L / query_tile), ceil(S / key_tile)]: 0 empty, 1 partly allowed, 2 full.
    """
    rows = -(-query_length // query_tile)
    columns = -(-key_length // key_tile)
    result = np.zeros((rows, columns), dtype=np.int8)
    key = np.arange(key_length, dtype=np.int32)[None, :]
    for row in range(rows):
        query = np.arange(row * query_tile, min(query_length, (row + 1) * query_tile), dtype=np.int32)[:, None]
        query = query + np.int32(query_start)
        shape = (query.shape[0], key_length)
        allowed = np.broadcast_to(np.asarray(allowed_pairs(pattern, query, key, causal=causal)), shape)
        for column in range(columns):
            tile = allowed[:, column * key_tile : (column + 1) * key_tile]
            result[row, column] = 2 if tile.all() else int(tile.any())
    return result
