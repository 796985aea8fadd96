"""Rotary positions against float64, as MLX and as the package of kernels computes them."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops import rotary
from zoo.runtime.native import native_kernels, why_no_native

native_only = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))

BASE = 500.0
# Of the kernels, relative to the largest number.
BOUND = 2e-6


@pytest.fixture(params=["mlx", pytest.param("native", marks=native_only)])
def computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "mlx":
        monkeypatch.setattr(rotary, "kernels_for", lambda *arrays: None)
    return str(request.param)


def _truth(x: np.ndarray, offset, frequencies: np.ndarray, *, traditional: bool, sign: int = 1) -> np.ndarray:
    x = x.astype(np.float64)
    B, _, L, H = x.shape
    first, second = (slice(0, None, 2), slice(1, None, 2)) if traditional else (slice(H // 2), slice(H // 2, None))
    positions_BL = np.broadcast_to(np.array(offset).reshape(-1, 1), (B, 1)) + np.arange(L)
    angles = sign * positions_BL[:, None, :, None] * frequencies
    y = np.empty_like(x)
    y[..., first] = x[..., first] * np.cos(angles) - x[..., second] * np.sin(angles)
    y[..., second] = x[..., second] * np.cos(angles) + x[..., first] * np.sin(angles)
    return y


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("offset", [0, 23, -4, [7, 900, 0]], ids=str)
@pytest.mark.parametrize("H", [2, 6, 32, 42])
def test_values_and_gradients_are_those_of_float64(H: int, offset, traditional: bool, computed_by: str) -> None:
    x, dy = _random(3, 2, 5, H), _random(3, 2, 5, H, seed=1)
    given = offset if isinstance(offset, int) else mx.array(offset, dtype=mx.int32)
    powers = BASE ** (np.arange(0, H, 2) / H)
    for settings, frequencies in (
        ({"base": BASE, "scale": 0.25}, 0.25 / powers),
        ({"wavelengths": mx.array(powers.astype(np.float32))}, 1 / powers.astype(np.float32).astype(np.float64)),
    ):
        (y,), (dx,) = mx.vjp(
            lambda x: rotary.rotate(x, given, traditional=traditional, **settings),  # noqa: B023
            [mx.array(x)],
            [mx.array(dy)],
        )
        # An angle in float32 is off by its last place, and the largest is 900.
        bound = BOUND if computed_by == "native" else 900 * 2 * tolerance(mx.float32) / 10
        for actual, given_array, sign in ((y, x, 1), (dx, dy, -1)):
            expected = _truth(given_array, offset, frequencies, traditional=traditional, sign=sign)
            assert np.abs(np.array(actual) - expected).max() <= bound * np.abs(expected).max()


@native_only
def test_far_positions_are_no_less_exact() -> None:
    x, offset = _random(1, 3, 200, 16), 2_000_000
    y = rotary.rotate(mx.array(x), offset, base=BASE, traditional=False)
    expected = _truth(x, offset, BASE ** (-np.arange(0, 16, 2) / 16), traditional=False)
    assert np.abs(np.array(y) - expected).max() <= BOUND * np.abs(expected).max()


@native_only
@pytest.mark.parametrize("traditional", [False, True])
def test_results_do_not_depend_on_threads_strides_or_the_other_rows(traditional: bool) -> None:
    kernels = native_kernels()

    def found(x: mx.array, offset) -> list[np.ndarray]:
        turn = lambda x: rotary.rotate(x, offset, base=BASE, traditional=traditional)  # noqa: E731
        return [np.array(each[0]) for each in mx.vjp(turn, [x], [x])]

    whole = mx.array(_random(2, 3, 700, 20))
    threads = kernels.num_threads()
    offsets = mx.array([3, 50], dtype=mx.int32)
    expected = found(whole, offsets)
    kernels.set_num_threads(1)
    alone = found(whole, offsets)
    kernels.set_num_threads(threads)
    views = [
        found(mx.array(np.array(whole.transpose(0, 2, 1, 3))).transpose(0, 2, 1, 3), offsets),
        found(mx.array(np.array(whole.swapaxes(2, 3))).swapaxes(2, 3), offsets),
        [np.concatenate(both) for both in zip(found(whole[:1], 3), found(whole[1:], 50), strict=True)],
        alone,
    ]
    for view in views:
        assert all(np.array_equal(one, other) for one, other in zip(view, expected, strict=True))
    later = found(whole[:, :, 650:], mx.array([653, 700], dtype=mx.int32))
    assert all(np.array_equal(one, other[:, :, 650:]) for one, other in zip(later, expected, strict=True))


@native_only
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 1, 0, 4), (1, 1, 1, 0), (1, 1, 1, 2)], ids=str)
def test_small_and_empty_arrays_keep_their_shape(shape: tuple[int, ...]) -> None:
    turn = lambda x: rotary.rotate(x, 3, base=BASE, traditional=True)  # noqa: E731
    (y,), (dx,) = mx.vjp(turn, [mx.ones(shape)], [mx.ones(shape)])
    assert np.array(y).shape == np.array(dx).shape == shape


@native_only
def test_what_is_no_finite_number_stays_in_its_pair() -> None:
    x = _random(1, 1, 2, 8)
    x[0, 0, 1, 1], x[0, 0, 1, 7] = math.nan, math.inf
    y = np.array(rotary.rotate(mx.array(x), 0, base=BASE, traditional=False))[0, 0]
    assert np.isfinite(y).tolist() == [[True] * 8, [True, False, True, False] * 2]


@native_only
def test_float32_on_a_cpu_is_computed_by_the_kernels_and_nothing_else_is() -> None:
    x, kernels = mx.array(_random(2, 3, 4, 6)), native_kernels()
    ours = rotary.rotate(x, 5, base=BASE, traditional=False)
    assert mx.array_equal(ours, kernels.rotate(x, mx.array(5), base=BASE)).item()
    half = x.astype(mx.bfloat16)
    theirs = mx.fast.rope(half, 6, traditional=False, base=BASE, scale=1.0, offset=5)
    assert mx.array_equal(rotary.rotate(half, 5, base=BASE, traditional=False), theirs).item()
    for mistake, message in (
        ({"x": half, "base": BASE}, "float32"),
        ({"x": x[..., :5], "base": BASE}, "even"),
        ({"x": x, "base": BASE, "offsets": mx.array([1, 2, 3])}, "one offset, or B"),
        ({"x": x}, "base or wavelengths"),
        ({"x": x, "base": 0.0}, "positive"),
        ({"x": x, "wavelengths": mx.ones(2)}, "half as long"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.rotate(**{"offsets": mx.array(0)} | mistake)
