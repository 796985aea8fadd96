"""Keyed randomness: numbers and permutations that are pure functions of a key and an index.

Nothing is stored and nothing is drawn in order, so that any part of any epoch can be had at once, by any process.
Only integer arithmetic modulo 2^64: the same on every machine and with every version of NumPy.
"""

import numpy as np

_MASK = (1 << 64) - 1
# Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", https://doi.org/10.1145/2714064.2660195:
# increment and finaliser of SplitMix64.
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27)
_LAST_SHIFT = 31
# Four rounds make a Feistel network indistinguishable from random (Luby and Rackoff); two more cost nothing here.
_ROUNDS = 6


def key_from(*parts: int) -> int:
    """A key of 64 bits from whole numbers; every one of them matters, and so does their order."""
    key = 0
    for part in parts:
        mixed = ((key ^ (part & _MASK)) + _INCREMENT) & _MASK
        for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=True):
            mixed = ((mixed ^ (mixed >> shift)) * multiplier) & _MASK
        key = mixed ^ (mixed >> _LAST_SHIFT)
    return key


def mixed_bits(values: np.ndarray, key: int) -> np.ndarray:
    """64 random bits for each value under a key, uint64."""
    mixed = values.astype(np.uint64) * np.uint64(_INCREMENT) + np.uint64(key)
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(multiplier)
    return mixed ^ (mixed >> np.uint64(_LAST_SHIFT))


def permuted(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a random permutation of `range(size)` takes indices.

    A Feistel network permutes the next power of four, and whoever lands outside walks on until inside (Black and
    Rogaway, "Ciphers with Arbitrary Finite Domains", https://doi.org/10.1007/3-540-45760-7_9): under four steps on
    average, whatever the size.

    Args:
        indices: Integers in [0, size).
        size: Number of things permuted, at least 1.
        key: Chooses the permutation.

    Returns:
        int64, of the shape of `indices`.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    values = indices.astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], half_bits, key)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: int, key: int) -> np.ndarray:
    bits, low = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & low
    for round_ in range(_ROUNDS):
        left, right = right, left ^ (mixed_bits(right, key_from(key, round_)) & low)
    return (left << bits) | right
