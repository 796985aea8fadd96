"""The tiles of a score matrix: which matter, and the scores of one, with what a mechanism and the mask do to them.

Letters: B batch, N query heads, K key/value heads, G = N / K queries per key/value head, T queries of a tile, U keys of
a tile, R = G * T rows of scores that share a key tile.
"""

import dataclasses
from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import allowed_pairs
from zoo.ops.scores import Learned
from zoo.ops.softmax import ScoreSpec

# Before the names of what a hook learns.
LEARNED = "learned "
MASKED = mx.finfo(mx.float32).min


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What is known before any data: the spec, which tiles matter, and which inputs follow q, k and v."""

    spec: ScoreSpec
    tiles: np.ndarray
    query_tile: int
    key_tile: int
    query_length: int
    key_length: int
    extras: tuple[str, ...]

    @property
    def changes_scores(self) -> bool:
        """Whether the mechanism does something to its scores."""
        return self.spec.hook is not None and self.spec.hook.changes_scores

    def rows(self) -> Iterator[tuple[int, slice]]:
        for row in range(self.tiles.shape[0]):
            yield row, slice(row * self.query_tile, min(self.query_length, (row + 1) * self.query_tile))

    def columns(self, row: int) -> Iterator[tuple[int, slice]]:
        for column in np.flatnonzero(self.tiles[row]).tolist():
            yield column, self.keys(column)

    def keys(self, column: int) -> slice:
        return slice(column * self.key_tile, min(self.key_length, (column + 1) * self.key_tile))


def learned_of(named: dict[str, mx.array]) -> dict[str, mx.array]:
    """What the mechanism's hook learns, among the inputs that follow q, k and v."""
    return {name.removeprefix(LEARNED): array for name, array in named.items() if name.startswith(LEARNED)}


def changed_scores(
    plan: Plan, tile: tuple[int, int], scores_BKRU: mx.array, learned: Learned, named: dict[str, mx.array]
) -> mx.array:
    """What the mechanism makes of a tile's scaled products."""
    hook = plan.spec.hook
    if hook is None or not hook.changes_scores:
        return scores_BKRU
    query_BT, key_BU = _tile_positions(plan, *tile, named)
    B, K, R, U = scores_BKRU.shape
    T = query_BT.shape[-1]
    scores_BNTU = scores_BKRU.reshape(B, K * (R // T), T, U)
    return hook.changed(scores_BNTU, query_BT, key_BU, learned).reshape(B, K, R, U)


def finished_scores(plan: Plan, tile: tuple[int, int], scores_BKRU: mx.array, named: dict[str, mx.array]) -> mx.array:
    """Scores of one tile with the mechanism's change, bias and mask, float32 [B, K, R, U]."""
    row, column = tile
    scores_BKRU = changed_scores(plan, tile, scores_BKRU, learned_of(named), named)
    masked = plan.tiles[row, column] == 1 or "lengths_B" in named or "segments_BL" in named
    if not masked and "slopes_N" not in named:
        return scores_BKRU
    query_BT, key_BU = _tile_positions(plan, row, column, named)
    B, K, R, U = scores_BKRU.shape
    T = query_BT.shape[-1]
    scores = scores_BKRU.reshape(B, K, R // T, T, U)
    if "slopes_N" in named:
        distance_BTU = mx.abs(query_BT[..., :, None] - key_BU[..., None, :]).astype(mx.float32)
        slopes = named["slopes_N"].astype(mx.float32).reshape(K, R // T, 1, 1)
        scores = scores - slopes * distance_BTU[:, None, None]
    if masked:
        allowed_BTU = _tile_mask(plan, tile, query_BT, key_BU, named)
        scores = mx.where(allowed_BTU[:, None, None], scores, MASKED)
    return scores.reshape(B, K, R, U)


def _tile_positions(plan: Plan, row: int, column: int, named: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """Positions of a tile's queries, [1 or B, T], and keys, [1 or B, U]."""
    start = row * plan.query_tile
    length = min(plan.query_length, start + plan.query_tile) - start
    offset = named.get("offset_B", plan.spec.mask.offset)
    query = MaskSpec(causal=plan.spec.mask.causal, offset=offset + start).positions(length)
    keys = plan.keys(column)
    if "key_positions" in named:
        key = named["key_positions"][..., keys]
    else:
        key = mx.arange(keys.start, keys.stop, dtype=mx.int32)
    return query.reshape(-1, length), key.reshape(-1, keys.stop - keys.start)


def _tile_mask(
    plan: Plan, tile: tuple[int, int], query_BT: mx.array, key_BU: mx.array, named: dict[str, mx.array]
) -> mx.array:
    """What the queries of a tile may attend to, bool [1 or B, T, U]."""
    row, column = tile
    query, key = query_BT[:, :, None], key_BU[:, None, :]
    allowed: mx.array = allowed_pairs(plan.spec.pattern, query, key, causal=plan.spec.mask.causal)
    if "lengths_B" in named:
        allowed = allowed & (key < named["lengths_B"][:, None, None])
    if "segments_BL" in named:
        segments_BL = named["segments_BL"]
        rows = slice(row * plan.query_tile, (row + 1) * plan.query_tile)
        allowed = allowed & (segments_BL[:, rows, None] == segments_BL[:, None, plan.keys(column)])
    return allowed
