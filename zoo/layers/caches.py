"""Caches for decoding: mlx-lm's own where they fit, and where each of their slots stands in the text.

Letters: B batch, S slots, K key/value heads, H head_dim.
"""

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

__all__ = ["ArraysCache", "KVCache", "RaggedKVCache", "RecurrentCache", "RotatingKVCache", "slot_positions"]


class RecurrentCache(ArraysCache):
    """mlx-lm's `ArraysCache` of recurrent states that also counts the tokens it has seen."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.offset: int | mx.array = 0

    @property
    def state(self) -> tuple[Any, ...]:
        """Arrays and the token count, for saving and for `mx.eval`."""
        return self.cache, self.offset

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        self.cache, self.offset = value

    def advance(self, N: int) -> None:  # noqa: N803 - mlx-lm's name
        """Counts N more tokens."""
        self.offset = self.offset + N


class RaggedKVCache:
    """Keys and values of rows with different histories, merged after each row was prefilled by itself.

    Every slot knows its position. One token a row is added at a time. When all `capacity` slots of a row are
    taken, the oldest token after the first `keep` makes room; without a capacity the cache grows.
    """

    step = 256

    def __init__(self, caches: list[KVCache | RotatingKVCache]) -> None:
        """Merges caches of single rows (B = 1 each), all of one kind and size."""
        bounded = isinstance(caches[0], RotatingKVCache)
        self.capacity: int | None = caches[0].max_size if bounded else None
        self.keep: int = caches[0].keep if bounded else 0
        parts = [cache.keys_and_values() for cache in caches]
        positions = [slot_positions(cache, keys.shape[2]) for cache, (keys, _) in zip(caches, parts, strict=True)]
        slots = max(keys.shape[2] for keys, _ in parts)
        self.keys = mx.concatenate([_pad(keys, slots, 2, 0) for keys, _ in parts])
        self.values = mx.concatenate([_pad(values, slots, 2, 0) for _, values in parts])
        self.positions = mx.stack([_pad(row, slots, 0, -1) for row in positions])
        self.offset = mx.array([cache.offset for cache in caches], dtype=mx.int32)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Adds one token a row: keys and values [B, K, 1, H]; returns all slots, [B, K, S, H]."""
        self._make_room()
        evictable = mx.where(self.positions < 0, -1, self.positions)
        evictable = mx.where((evictable >= 0) & (evictable < self.keep), mx.iinfo(mx.int32).max, evictable)
        slot_B1 = mx.argmin(evictable, axis=1, keepdims=True)
        here = slot_B1[:, None, :, None]
        self.keys = mx.put_along_axis(self.keys, mx.broadcast_to(here, keys.shape), keys, axis=2)
        self.values = mx.put_along_axis(self.values, mx.broadcast_to(here, values.shape), values, axis=2)
        self.positions = mx.put_along_axis(self.positions, slot_B1, self.offset[:, None], axis=1)
        self.offset = self.offset + 1
        return self.keys, self.values

    def _make_room(self) -> None:
        slots = self.keys.shape[2]
        if self.capacity is not None and slots >= self.capacity:
            return
        # Whether a row still has an empty slot is data; growing when the longest history fills all slots is not.
        if mx.any(mx.all(self.positions >= 0, axis=1)).item():
            target = slots + self.step if self.capacity is None else min(self.capacity, slots + self.step)
            self.keys, self.values = _pad(self.keys, target, 2, 0), _pad(self.values, target, 2, 0)
            self.positions = _pad(self.positions, target, 1, -1)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """Arrays, for `mx.eval`."""
        return self.keys, self.values, self.positions, self.offset

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def empty(self) -> bool:
        """Never: it is made from filled caches."""
        return False

    def is_trimmable(self) -> bool:
        """Whether `trim` works: it does not."""
        return False


def slot_positions(cache: Any, slots: int) -> mx.array:
    """Positions of the first `slots` keys that the cache's last update returned.

    Args:
        cache: A `KVCache`, `RotatingKVCache` or `RaggedKVCache` after `update_and_fetch`.
        slots: S, the length of the keys returned.

    Returns:
        int32 [S], or [B, S] for a `RaggedKVCache`; -1 marks an empty slot.
    """
    if isinstance(cache, RaggedKVCache):
        return cache.positions
    index = mx.arange(slots, dtype=mx.int32)
    if not isinstance(cache, RotatingKVCache) or cache.offset <= slots:
        return index
    # Slots before `keep` never move; the rest is a ring whose newest entry lies just before `_idx`.
    newest_first = cache.offset - (cache._idx - index)
    wrapped = newest_first - (slots - cache.keep)
    ring = mx.where(index < cache._idx, newest_first, wrapped)
    return mx.where(index < cache.keep, index, ring)


def _pad(array: mx.array, target: int, axis: int, value: int) -> mx.array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, target - array.shape[axis])
    return mx.pad(array, widths, constant_values=value)
