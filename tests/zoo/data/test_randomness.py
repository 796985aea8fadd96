"""Keyed numbers and permutations."""

import numpy as np
import pytest

from zoo.data.randomness import key_from, mixed_bits, permuted


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 63, 257, 1000, 4099])
@pytest.mark.parametrize("key", [0, 5, 2**64 - 1])
def test_a_permutation_hits_everything_once(size, key):
    assert sorted(permuted(np.arange(size), size, key)) == list(range(size))


def test_any_part_of_a_permutation_can_be_had_by_itself():
    whole = permuted(np.arange(1001), 1001, 3)
    some = np.array([[1000, 0, 17], [4, 4, 999]])
    assert (permuted(some, 1001, 3) == whole[some]).all()


def test_keys_give_unlike_permutations():
    whole = [permuted(np.arange(1001), 1001, key) for key in range(20)]
    same = [np.mean(one == other) for index, one in enumerate(whole) for other in whole[:index]]
    # Two random permutations agree in one place on average.
    assert max(same) < 12 / 1001
    assert np.mean(same) == pytest.approx(1 / 1001, rel=0.5)


def test_small_permutations_come_equally_often():
    drawn = [tuple(permuted(np.arange(4), 4, key_from(key)).tolist()) for key in range(4800)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    # Six standard deviations of a binomial.
    assert abs(counts - 200).max() < 6 * 14


def test_a_permutation_scatters_neighbours():
    placed = permuted(np.arange(4099), 4099, 9)
    assert abs(np.corrcoef(placed[:-1], placed[1:])[0, 1]) < 0.06
    assert abs(np.corrcoef(placed, np.arange(4099))[0, 1]) < 0.06


def test_permutations_of_huge_ranges_cost_no_memory():
    size = 2**40 + 1
    places = permuted(np.arange(100), size, 1)
    assert len(set(places.tolist())) == 100
    assert 0 <= places.min() < places.max() < size
    assert places.max() > size // 2


def test_bits_are_even_and_differ_by_key():
    bits = mixed_bits(np.arange(10_001), 4)
    assert bits.dtype == np.uint64
    assert len(np.unique(bits)) == 10_001
    ones = [np.mean(bits >> np.uint64(place) & np.uint64(1)) for place in range(64)]
    assert max(abs(share - 0.5) for share in ones) < 0.025
    assert not (bits == mixed_bits(np.arange(10_001), 5)).any()


def test_keys_depend_on_every_part_and_their_order():
    keys = [key_from(), key_from(0), key_from(0, 0), key_from(1, 2), key_from(2, 1), key_from(-1), key_from(3)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_numbers_never_change():
    # Runs are resumed by later versions, so these are part of what a checkpoint means.
    assert key_from(1, 2, 3) == 15020427595393229491
    assert permuted(np.arange(6), 6, 7).tolist() == [0, 1, 2, 5, 3, 4]
    assert mixed_bits(np.array([8]), 9).tolist() == [18143267973713359165]
