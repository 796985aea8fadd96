"""Caches for decoding: mlx-lm's own where they fit, those of unequal rows, and which position lies in which slot.

Letters: B batch, S slots, K key/value heads, H head_dim.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import cache as mlx_lm_cache
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

from zoo.config import UserError

__all__ = [
    "ArraysCache",
    "KVCache",
    "QuantizedKVCache",
    "RaggedKVCache",
    "RecurrentCache",
    "RotatingKVCache",
    "merge_rows",
    "slot_positions",
]


class QuantizedKVCache(mlx_lm_cache.QuantizedKVCache, KVCache):
    """mlx-lm's quantized keys and values, given out as the numbers that they stand for.

    So every op that decodes from a `KVCache` does so from this one. What is saved is memory between steps: each step
    makes the whole keys and values of one layer at a time.
    """

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """All keys and values, [B, K, S, H] each."""
        keys, values = (
            mx.dequantize(packed, scales, biases, group_size=self.group_size, bits=self.bits)
            for packed, scales, biases in super().keys_and_values()
        )
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values."""
        return 0 if self.empty() else super().nbytes


class RecurrentCache(ArraysCache):
    """mlx-lm's `ArraysCache` of recurrent states that also counts the tokens it has seen."""

    def __init__(self, size: int) -> None:
        """Makes an empty cache of `size` states."""
        super().__init__(size)
        # On the host: a count that lived on the device would be a chain of additions that nothing ever evaluates.
        self._counts: int | np.ndarray = 0

    @property
    def offset(self) -> int | mx.array:
        """Tokens seen: an int, or int32 [B] where the rows of a merged batch have different histories."""
        return self._counts if isinstance(self._counts, int) else mx.array(self._counts)

    @property
    def state(self) -> tuple[Any, ...]:
        """Arrays and the token count, for saving and for `mx.eval`."""
        return self.cache, self.offset

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        self.cache, offset = value
        self._counts = offset if isinstance(offset, int) else np.array(offset)
        self.left_padding = self.lengths = None

    def advance(self, N: int) -> None:
        """Counts N more tokens."""
        self._counts = self._counts + N

    def filter(self, batch_indices: list[int]) -> None:
        """Keeps only these rows of the batch."""
        super().filter(mx.array(batch_indices))
        if not isinstance(self._counts, int):
            self._counts = self._counts[batch_indices]

    @classmethod
    def merge(cls, caches: Sequence["RecurrentCache"]) -> "RecurrentCache":
        """One batch of rows that were each processed by themselves."""
        merged = cls(len(caches[0].cache))
        merged.cache = [mx.concatenate(list(states)) for states in zip(*(cache.cache for cache in caches), strict=True)]
        merged._counts = np.array([cache.offset for cache in caches], dtype=np.int32)
        return merged


class RaggedKVCache:
    """Keys and values of rows with different histories, merged after each row was prefilled by itself.

    The slot of a position is fixed, so neither finding room nor growing has to look at data: position p lies in
    slot p, and where a capacity bounds the cache, positions from `keep` on go round the slots from `keep` on. One
    token a row is added at a time; without a capacity the cache grows by `step` slots.
    """

    step = KVCache.step

    def __init__(self, caches: Sequence[KVCache | RotatingKVCache]) -> None:
        """Merges filled caches of single rows (B = 1 each), all of one kind and size."""
        bounded = isinstance(caches[0], RotatingKVCache)
        self.capacity: int | None = caches[0].max_size if bounded else None
        self.keep: int = caches[0].keep if bounded else 0
        self._counts = np.array([cache.offset for cache in caches], dtype=np.int32)
        slots = self._room_for(int(self._counts.max()))
        rows = [self._arranged(cache, slots) for cache in caches]
        self.keys = mx.concatenate([keys for keys, _ in rows])
        self.values = mx.concatenate([values for _, values in rows])

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Adds one token a row: keys and values [B, K, 1, H]; returns all slots, [B, K, S, H]."""
        assert keys.shape[2] == 1, "a ragged batch grows by one token a row"
        missing = self._room_for(int(self._counts.max()) + 1) - self.keys.shape[2]
        if missing > 0:
            widths = [(0, 0), (0, 0), (0, missing), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, widths), mx.pad(self.values, widths)
        here = mx.array(self._slots_of(self._counts))[:, None, None, None]
        self.keys = mx.put_along_axis(self.keys, mx.broadcast_to(here, keys.shape), keys, axis=2)
        self.values = mx.put_along_axis(self.values, mx.broadcast_to(here, values.shape), values, axis=2)
        self._counts = self._counts + 1
        return self.keys, self.values

    @property
    def offset(self) -> mx.array:
        """Tokens seen by each row, int32 [B]."""
        return mx.array(self._counts)

    @property
    def positions(self) -> mx.array:
        """The position that each slot holds, int32 [B, S]; -1 marks an empty slot."""
        slot = mx.arange(self.keys.shape[2], dtype=mx.int32)
        newest = self.offset[:, None] - 1
        filled = mx.where(slot <= newest, slot, -1)
        if self.capacity is None:
            return filled
        latest = newest - (newest - slot) % (self.capacity - self.keep)
        return mx.where(slot < self.keep, filled, mx.where(latest >= self.keep, latest, -1))

    def filter(self, batch_indices: list[int]) -> None:
        """Keeps only these rows of the batch."""
        rows = mx.array(batch_indices)
        self.keys, self.values = self.keys[rows], self.values[rows]
        self._counts = self._counts[batch_indices]

    @property
    def state(self) -> tuple[mx.array, ...]:
        """Arrays, for `mx.eval`."""
        return self.keys, self.values, self.offset

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

    def _room_for(self, tokens: int) -> int:
        slots = -(-tokens // self.step) * self.step
        return slots if self.capacity is None else min(slots, self.capacity)

    def _slots_of(self, positions: np.ndarray) -> np.ndarray:
        if self.capacity is None:
            return positions
        around = self.keep + (positions - self.keep) % (self.capacity - self.keep)
        return np.where(positions < self.keep, positions, around)

    def _arranged(self, cache: KVCache | RotatingKVCache, slots: int) -> tuple[mx.array, mx.array]:
        """Keys and values of one row, each position in its slot; after a chunk a row may hold more than fits."""
        keys, values = cache.keys_and_values()
        positions = np.array(slot_positions(cache, keys.shape[2]))
        source = np.zeros(slots, dtype=np.int32)
        # More than fits lies in temporal order, so that of several positions that share a slot the latest stays.
        source[self._slots_of(positions)] = np.arange(len(positions))
        return keys[:, :, mx.array(source)], values[:, :, mx.array(source)]


def merge_rows(caches: Sequence[Any]) -> RaggedKVCache | RecurrentCache:
    """Merges one layer's caches of single rows, each of which has seen at least one token, into one of a batch.

    Args:
        caches: The layer's cache of each row (B = 1 each), all of one kind.

    Raises:
        UserError: If caches of this kind cannot be merged.
    """
    first = caches[0]
    if isinstance(first, KVCache | RotatingKVCache):
        return RaggedKVCache(caches)
    if isinstance(first, RecurrentCache):
        return RecurrentCache.merge(caches)
    raise UserError(
        f"attention: prompts in a batch must have caches that merge; got {type(first).__name__}"
        " (choices: KVCache, RotatingKVCache, RecurrentCache); generate from one prompt at a time"
    )


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
