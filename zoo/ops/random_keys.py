"""Keys for MLX's random functions: a fresh one from the global state, and others derived from it by name."""

import hashlib

import mlx.core as mx


def fresh_key() -> mx.array:
    """Draws a key from MLX's global random state, uint32 [2]; it depends on the seed and on earlier draws."""
    return mx.random.randint(0, 2**31 - 1, shape=(2,), dtype=mx.int32).astype(mx.uint32)


def named_key(key: mx.array, name: str) -> mx.array:
    """The key that belongs to `name` under `key`, uint32 [2]; other names do not influence it."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    words = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")]
    return mx.bitwise_xor(key, mx.array(words, dtype=mx.uint32))
