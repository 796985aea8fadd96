"""Which tiles of the score matrix a kernel has to visit, and which pairs of them a pattern allows.

Of a causal or a windowed pattern there are a few different masks, whatever the length; equal ones are held once.

Letters: L query length, S key length, T queries of a tile, U keys of a tile.
"""

import dataclasses
import functools

import numpy as np

from zoo.ops.patterns import Pattern, allowed_pairs


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TileMap:
    """Tiles in which the pattern allows anything, row of tiles after row.

    Attributes:
        query_tile: T.
        key_tile: U.
        row_starts: int32 [rows + 1]; the tiles of row i are those from row_starts[i] up to row_starts[i + 1].
        columns: int32 [tiles], the key tile of each.
        kinds: int32 [tiles], 0 where every pair is allowed, else 1 + the number of a mask.
        masks: uint8 [masks, U, T], at least one; hidden beyond the last key and the last query.
    """

    query_tile: int
    key_tile: int
    row_starts: np.ndarray
    columns: np.ndarray
    kinds: np.ndarray
    masks: np.ndarray

    def by_column(self, num_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same tiles, column after column: starts [num_columns + 1], rows and kinds."""
        rows = np.repeat(np.arange(len(self.row_starts) - 1, dtype=np.int32), np.diff(self.row_starts))
        order = np.argsort(self.columns, kind="stable")
        starts = np.searchsorted(self.columns[order], np.arange(num_columns + 1)).astype(np.int32)
        return starts, rows[order], self.kinds[order]


@functools.lru_cache(maxsize=64)
def tile_map(
    pattern: Pattern,
    *,
    causal: bool,
    query_length: int,
    key_length: int,
    query_start: int,
    query_tile: int,
    key_tile: int,
) -> TileMap:
    """The map of a pattern.

    Args:
        pattern: A hashable pattern.
        causal: Whether keys after the query are hidden.
        query_length: L, at least 1.
        key_length: S, at least 1; keys start at position 0.
        query_start: Position of the first query.
        query_tile: T.
        key_tile: U.
    """
    L, S, T, U = query_length, key_length, query_tile, key_tile
    starts, columns, kinds, masks = [0], list[np.ndarray](), list[np.ndarray](), dict[bytes, int]()
    key = np.arange(S, dtype=np.int32)
    num_columns = -(-S // U)
    for first in range(0, L, T):
        query = np.arange(first, min(L, first + T), dtype=np.int32) + np.int32(query_start)
        reach = min(S, int(query[-1]) + 1) if causal else S
        pairs = np.asarray(allowed_pairs(pattern, query[None, :], key[:reach, None], causal=causal))
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
    return TileMap(
        query_tile=T,
        key_tile=U,
        row_starts=np.array(starts, dtype=np.int32),
        columns=np.concatenate(columns),
        kinds=np.concatenate(kinds),
        masks=np.frombuffer(stored, dtype=np.uint8).reshape(-1, U, T),
    )
