"""Keys: what they depend on, and what not."""

import mlx.core as mx

from zoo.ops.random_keys import fresh_key, named_key


def test_the_seed_decides_a_fresh_key_and_the_next_one_differs() -> None:
    mx.random.seed(3)
    first, second = fresh_key(), fresh_key()
    mx.random.seed(3)
    assert mx.array_equal(first, fresh_key()).item()
    assert not mx.array_equal(first, second).item()


def test_a_named_key_depends_on_key_and_name() -> None:
    key, other = mx.random.key(1), mx.random.key(2)
    assert mx.array_equal(named_key(key, "a.weight"), named_key(key, "a.weight")).item()
    assert not mx.array_equal(named_key(key, "a.weight"), named_key(key, "b.weight")).item()
    assert not mx.array_equal(named_key(key, "a.weight"), named_key(other, "a.weight")).item()


def test_values_under_different_names_are_uncorrelated() -> None:
    key, count = mx.random.key(1), 20_000
    left, right = (mx.random.normal((count,), key=named_key(key, name)) for name in ("q_proj", "k_proj"))
    # The correlation of independent samples is about 1 / sqrt(count).
    assert abs(mx.mean(left * right).item()) < 5 / count**0.5
