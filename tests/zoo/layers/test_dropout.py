"""Dropout: how much it drops, that the mean stays, and that the key decides."""

import mlx.core as mx
import pytest

from zoo.layers.dropout import dropout


def test_the_share_dropped_and_the_mean_are_as_promised() -> None:
    x = mx.full((211, 307), 3.0)
    y = dropout(x, 0.3, mx.random.key(0))
    assert mx.mean(y == 0).item() == pytest.approx(0.3, abs=0.01)
    assert mx.mean(y).item() == pytest.approx(3.0, rel=0.01)
    assert {round(value, 4) for value in y[0].tolist()} == {0.0, round(3 / 0.7, 4)}


def test_the_key_decides() -> None:
    x = mx.ones((5, 43))
    first, again, other = (dropout(x, 0.5, mx.random.key(seed)) for seed in (1, 1, 2))
    assert mx.array_equal(first, again).item()
    assert not mx.array_equal(first, other).item()
    assert dropout(x, 0.5, None) is x


def test_gradients_belong_to_the_elements_kept() -> None:
    x, key = mx.random.normal((3, 29)), mx.random.key(4)
    gradient = mx.grad(lambda x: dropout(x, 0.4, key).sum())(x)
    assert mx.array_equal(gradient == 0, dropout(x, 0.4, key) == 0).item()
    assert mx.max(gradient).item() == pytest.approx(1 / 0.6)


def test_half_precision_stays() -> None:
    assert dropout(mx.ones((7,), dtype=mx.bfloat16), 0.5, mx.random.key(0)).dtype == mx.bfloat16
