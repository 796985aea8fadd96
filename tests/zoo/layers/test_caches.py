"""Caches: which position lies in which slot, told by keys that are their own positions."""

import itertools
import random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from zoo.config import UserError
from zoo.layers.caches import (
    ArraysCache,
    KVCache,
    RaggedKVCache,
    RecurrentCache,
    RotatingKVCache,
    merge_rows,
    slot_positions,
)

# (max_size, keep): room for one moving token, for several, none kept and many kept.
BOUNDS = [(1, 0), (2, 1), (5, 4), (3, 0), (7, 0), (7, 3), (9, 1), (300, 5)]


def position_keys(start, length):
    """Keys and values [1, 1, length, 1] that hold their own positions; values negated, so that mixing them up shows."""
    keys = mx.arange(start, start + length, dtype=mx.float32).reshape(1, 1, length, 1)
    return keys, -keys


def filled(cache, lengths):
    """The cache after updates of these lengths, and what the last one returned, as lists of positions."""
    start = cache.offset
    keys = values = mx.zeros(0)
    for length in lengths:
        keys, values = cache.update_and_fetch(*position_keys(start, length))
        start += length
    return cache, keys.reshape(-1).tolist(), values.reshape(-1).tolist()


def random_lengths(seed, updates, choices):
    return random.Random(seed).choices(choices, k=updates)


@pytest.mark.parametrize(("max_size", "keep"), BOUNDS)
def test_slot_positions_name_every_key_of_a_rotating_cache(max_size, keep):
    for seed in range(6):
        cache = RotatingKVCache(max_size=max_size, keep=keep)
        for length in random_lengths(seed, 17, [1, 1, 1, 2, 3, 11, max_size]):
            cache, keys, _ = filled(cache, [length])
            assert slot_positions(cache, len(keys)).tolist() == keys


@pytest.mark.parametrize(("max_size", "keep"), BOUNDS)
def test_rotating_cache_returns_the_kept_and_the_latest_tokens(max_size, keep):
    for seed in range(5):
        cache = RotatingKVCache(max_size=max_size, keep=keep)
        for length in random_lengths(seed, 17, [1, 1, 2, 5]):
            cache, keys, _ = filled(cache, [length])
            first_query = cache.offset - length
            needed = set(range(min(keep, cache.offset)))
            needed |= set(range(max(0, first_query - (max_size - keep) + 1), cache.offset))
            assert needed <= set(keys)


def test_slot_positions_of_a_growing_cache_are_their_order():
    cache, keys, _ = filled(KVCache(), [5, 1, 1, 3])
    assert slot_positions(cache, len(keys)).tolist() == keys == list(range(10))


HISTORIES = [[3], [13], [1], [7, 1, 1], [2, 9], [31, 1, 1, 1]]


@pytest.mark.parametrize(("max_size", "keep"), [bound for bound in BOUNDS if bound[0] < 300])
def test_ragged_cache_holds_the_kept_and_the_latest_tokens_of_every_row(max_size, keep):
    caches = [filled(RotatingKVCache(max_size=max_size, keep=keep), lengths)[0] for lengths in HISTORIES]
    ragged = RaggedKVCache(caches)
    counts = [sum(lengths) for lengths in HISTORIES]
    for _ in range(2 * max_size + 3):
        check_ragged(ragged, counts, lambda count: kept_tokens(count, max_size, keep))
        assert ragged.keys.shape[2] <= max_size
        counts = append_positions(ragged, counts)


def test_ragged_cache_without_bound_holds_everything_and_grows_by_steps():
    lengths = [KVCache.step - 2, 3, 1, KVCache.step + 5]
    ragged = RaggedKVCache([filled(KVCache(), [length])[0] for length in lengths])
    counts = lengths
    for _ in range(KVCache.step - 5):
        counts = append_positions(ragged, counts)
        assert ragged.keys.shape[2] == 2 * KVCache.step
    counts = append_positions(ragged, counts)
    assert ragged.keys.shape[2] == 3 * KVCache.step
    check_ragged(ragged, counts, lambda count: set(range(count)))


def test_ragged_cache_that_is_bounded_but_not_full_grows_to_its_bound():
    max_size, keep = 300, 5
    ragged = RaggedKVCache([filled(RotatingKVCache(max_size=max_size, keep=keep), [n])[0] for n in (2, 250)])
    counts = [2, 250]
    for _ in range(400):
        counts = append_positions(ragged, counts)
    check_ragged(ragged, counts, lambda count: kept_tokens(count, max_size, keep))
    assert ragged.keys.shape[2] == max_size


def test_ragged_cache_keeps_only_the_rows_asked_for():
    ragged = RaggedKVCache([filled(RotatingKVCache(max_size=5, keep=1), [n])[0] for n in (2, 9, 4)])
    ragged.filter([1, 2])
    check_ragged(ragged, [9, 4], lambda count: kept_tokens(count, 5, 1))
    counts = append_positions(ragged, [9, 4])
    check_ragged(ragged, counts, lambda count: kept_tokens(count, 5, 1))
    assert ragged.offset.tolist() == [10, 5]


def test_bytes_of_a_ragged_cache_are_those_of_its_arrays():
    ragged = RaggedKVCache([filled(RotatingKVCache(max_size=6, keep=1), [n])[0] for n in (2, 9)])
    assert ragged.nbytes == 2 * 2 * 6 * 4
    mx.eval(ragged.state)


def test_a_ragged_batch_takes_one_token_a_row():
    ragged = RaggedKVCache([filled(KVCache(), [3])[0]])
    with pytest.raises(AssertionError, match="one token a row"):
        ragged.update_and_fetch(*position_keys(3, 2))


def kept_tokens(count, max_size, keep):
    return set(range(min(keep, count))) | set(range(max(0, count - (max_size - keep)), count))


def append_positions(ragged, counts):
    token = mx.array(counts, dtype=mx.float32)[:, None, None, None]
    ragged.update_and_fetch(token, -token)
    return [count + 1 for count in counts]


def check_ragged(ragged, counts, wanted):
    positions = np.array(slot_positions(ragged, ragged.keys.shape[2]))
    keys, values = np.array(ragged.keys)[:, 0, :, 0], np.array(ragged.values)[:, 0, :, 0]
    assert positions.shape == keys.shape
    for row, count in enumerate(counts):
        held = positions[row] >= 0
        assert sorted(positions[row][held]) == sorted(wanted(count))
        np.testing.assert_array_equal(keys[row][held], positions[row][held])
        np.testing.assert_array_equal(values[row][held], -positions[row][held])


def recurrent(row, tokens):
    cache = RecurrentCache(2)
    cache[0] = mx.full((1, 3, 2), row)
    cache[1] = mx.full((1, 5), -row)
    cache.advance(tokens)
    return cache


def test_recurrent_caches_merge_row_by_row():
    merged: Any = merge_rows([recurrent(row, tokens) for row, tokens in ((0, 7), (1, 1), (2, 4))])
    merged.advance(1)
    assert merged.offset.tolist() == [8, 2, 5]
    assert merged[0][:, 0, 0].tolist() == [0, 1, 2]
    assert merged[1][:, 0].tolist() == [0, -1, -2]
    merged.filter([0, 2])
    assert merged.offset.tolist() == [8, 5]
    assert merged[0][:, 0, 0].tolist() == [0, 2]


def test_a_recurrent_cache_counts_its_tokens_and_returns_from_its_state():
    cache = recurrent(3, 4)
    cache.advance(2)
    assert cache.offset == 6
    again: Any = RecurrentCache(2)
    assert again.empty()
    again.state = cache.state
    again.advance(1)
    assert again.offset == 7
    assert again.nbytes == cache.nbytes == 4 * (3 * 2 + 5)
    merged = merge_rows([cache, recurrent(1, 1)])
    again.state = merged.state
    assert again.offset.tolist() == [6, 1]


def test_states_of_every_cache_can_be_evaluated():
    caches = [filled(KVCache(), [3])[0], filled(RotatingKVCache(max_size=2), [3])[0], recurrent(1, 3)]
    mx.eval([cache.state for cache in itertools.chain(caches, [merge_rows([cache]) for cache in caches])])


def test_caches_that_cannot_merge_are_refused_by_name():
    with pytest.raises(UserError, match="ArraysCache"):
        merge_rows([ArraysCache(1)])
