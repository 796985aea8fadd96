"""Norms against float64, as MLX and as the package of kernels computes them."""

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.layers.norms import LayerNorm, RMSNorm
from zoo.ops import norms
from zoo.runtime.native import native_kernels, why_no_native

native_only = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))

Norm = Callable[..., mx.array]
# Weight, and weight and bias, and without.
FORMS = [("rms_norm", 0), ("rms_norm", 1), ("layer_norm", 0), ("layer_norm", 1), ("layer_norm", 2)]
# Of the kernels, relative to the largest of a row of x and of a weight's gradient.
BOUND = 2e-6
EPS = 1e-5


@pytest.fixture(params=["mlx", pytest.param("native", marks=native_only)])
def computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "mlx":
        monkeypatch.setattr(norms, "kernels_for", lambda *arrays: None)
    return str(request.param)


def _function(name: str, count: int, eps: float) -> Norm:
    """The norm of x and as many vectors as there are."""
    absent = {"rms_norm": 1, "layer_norm": 2}[name] - count
    return lambda x, *vectors: getattr(norms, name)(x, *vectors, *[None] * absent, eps)


def _truth(name: str, arrays: list[np.ndarray], dy: np.ndarray, eps: float) -> list[np.ndarray]:
    """The value, and the gradients of x, weight and bias, in float64."""
    x, *vectors = (array.astype(np.float64) for array in arrays)
    weight = vectors[0] if vectors else np.ones(x.shape[-1])
    mean = (lambda a: a.mean(-1, keepdims=True)) if name == "layer_norm" else lambda a: np.zeros((*a.shape[:-1], 1))
    c = x - mean(x)
    n = 1 / np.sqrt((c * c).mean(-1, keepdims=True) + eps)
    h, g, rows = c * n, dy * weight, tuple(range(x.ndim - 1))
    dx = n * (g - mean(g) - h * (g * h).mean(-1, keepdims=True))
    y = h * weight + (vectors[1] if len(vectors) > 1 else 0)
    return [y, dx, *[(dy * h).sum(rows), dy.sum(rows)][: len(vectors)]]


def _found(function: Norm, arrays: list[np.ndarray], dy: np.ndarray) -> list[np.ndarray]:
    y, gradients = mx.vjp(function, [mx.array(array) for array in arrays], [mx.array(dy.astype(np.float32))])
    return [np.array(each, dtype=np.float64) for each in [*y, *gradients]]


def _arrays(shape: tuple[int, ...], count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = [shape, *[shape[-1:]] * count, shape]
    *arrays, dy = (generator.standard_normal(each).astype(np.float32) for each in shapes)
    return arrays, dy


def _compare(found: list[np.ndarray], truth: list[np.ndarray], bound: float) -> None:
    for index, (actual, expected) in enumerate(zip(found, truth, strict=True)):
        assert actual.shape == expected.shape
        # Each row has a size of its own.
        largest = np.abs(expected).max(-1, keepdims=True) if index < 2 else np.abs(expected).max()
        assert np.all(np.abs(actual - expected) <= bound * largest + 1e-44)


@pytest.mark.parametrize(("name", "count"), FORMS)
@pytest.mark.parametrize("shape", [(5, 3, 33), (1,), (2, 1), (7, 64), (300, 130)], ids=str)
def test_values_and_gradients_are_those_of_float64(
    name: str, count: int, shape: tuple[int, ...], computed_by: str
) -> None:
    arrays, dy = _arrays(shape, count)
    found = _found(_function(name, count, EPS), arrays, dy)
    if shape[-1] == 1 and name == "layer_norm":
        # A single number is its own mean.
        assert not found[1].any()
    bound = BOUND if computed_by == "native" else tolerance(mx.float32, gradient=True)
    # A norm of one number leaves so little that rounding is all of the gradient.
    if shape[-1] > 1:
        _compare(found, _truth(name, arrays, dy, EPS), bound)


@native_only
@pytest.mark.parametrize(("name", "count"), [("rms_norm", 1), ("layer_norm", 2)])
@pytest.mark.parametrize("long", [False, True])
def test_huge_tiny_and_shifted_rows_are_no_less_exact(name: str, count: int, long: bool) -> None:
    arrays, dy = _arrays((9, 5001 if long else 37), count, seed=5)
    x = arrays[0]
    for row, factor in enumerate([1e-42, 1e-30, 1e-12, 1e10, 1e30, 3e37]):
        x[row] *= np.float32(factor)
    if name == "layer_norm":
        x[6] += 1e4
    dy[7] *= np.float32(1e-38)
    dy[8] *= np.float32(1e30)
    for eps in (0.0, EPS):
        found, truth = _found(_function(name, count, eps), arrays, dy), _truth(name, arrays, dy, eps)
        # What float32 cannot hold is left out.
        rows = np.abs(truth[1]).max(-1) < 1e38
        assert rows.sum() >= 7
        _compare([each[rows] for each in found[:2]], [each[rows] for each in truth[:2]], BOUND)
        _compare(found[2:], truth[2:], BOUND)


@native_only
@pytest.mark.parametrize(("name", "count"), [("rms_norm", 1), ("layer_norm", 2)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_gives_what_the_formula_gives(name: str, count: int, value: float) -> None:
    arrays, dy = _arrays((4, 19), count, seed=6)
    arrays[0][2, 17] = value
    with np.errstate(invalid="ignore"):
        truth = _truth(name, arrays, dy, EPS)
    for actual, expected in zip(_found(_function(name, count, EPS), arrays, dy), truth, strict=True):
        assert np.allclose(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@native_only
@pytest.mark.parametrize(("name", "count"), FORMS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 3), (3, 0)], ids=str)
def test_nothing_gives_nothing_and_gradients_of_zero(name: str, count: int, shape: tuple[int, ...]) -> None:
    arrays, dy = _arrays(shape, count)
    for actual, given in zip(_found(_function(name, count, EPS), arrays, dy), [arrays[0], *arrays], strict=True):
        assert actual.shape == given.shape
        assert not actual.any()


@native_only
@pytest.mark.parametrize(("name", "count"), [("rms_norm", 1), ("layer_norm", 2)])
def test_results_do_not_depend_on_threads_or_on_the_other_rows(name: str, count: int) -> None:
    kernels, function = native_kernels(), _function(name, count, EPS)
    # More rows than there are sums, in uneven chunks.
    arrays, dy = _arrays((1001, 67), count)
    threads, results = kernels.num_threads(), []
    for number in (1, 3):
        kernels.set_num_threads(number)
        results.append(_found(function, arrays, dy))
    kernels.set_num_threads(threads)
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))
    alone = _found(function, [arrays[0][500:501], *arrays[1:]], dy[500:501])
    assert np.array_equal(alone[0][0], results[0][0][500])
    assert np.array_equal(alone[1][0], results[0][1][500])


@native_only
@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[::2, ::3], lambda x: mx.broadcast_to(x[:1], x.shape)])
def test_strides_do_not_matter(view) -> None:
    x = view(mx.random.normal((12, 10), key=mx.random.key(3)))
    weight = mx.random.normal((2 * x.shape[-1],), key=mx.random.key(4))[::2]
    function = _function("layer_norm", 2, EPS)
    found = mx.vjp(function, [x, weight, weight], [x])
    expected = mx.vjp(function, [mx.array(np.array(each)) for each in (x, weight, weight)], [mx.array(np.array(x))])
    for actual, truth in zip(found, expected, strict=True):
        assert all(mx.array_equal(one, other).item() for one, other in zip(actual, truth, strict=True))


@native_only
@pytest.mark.parametrize("compiled", [False, True])
def test_memory_that_is_used_again_holds_no_one_elses_numbers(compiled: bool) -> None:
    weight = mx.random.normal((50,), key=mx.random.key(5))

    def loss(x: mx.array, norm: Norm) -> mx.array:
        kept = x * 2
        return (norm(kept, weight, EPS) * kept + norm(x * 3, weight, EPS)).sum()

    x = mx.random.normal((40, 50), key=mx.random.key(6))
    ours, theirs = (mx.value_and_grad(loss) for _ in range(2))
    ours = mx.compile(lambda x: mx.value_and_grad(loss)(x, norms.rms_norm)) if compiled else ours
    found = ours(x) if compiled else ours(x, norms.rms_norm)
    for actual, expected in zip(found, theirs(x, mx.fast.rms_norm), strict=True):
        assert mx.allclose(actual, expected, rtol=1e-4, atol=1e-4).item()


@native_only
def test_float32_on_a_cpu_is_computed_by_the_kernels_and_nothing_else_is() -> None:
    x, kernels = mx.random.normal((3, 24)), native_kernels()
    rms, layer, plain = RMSNorm(24), LayerNorm(24), LayerNorm(24, affine=False)
    assert mx.array_equal(rms(x), kernels.rms_norm(x, rms.weight, rms.eps)).item()
    assert mx.array_equal(layer(x), kernels.layer_norm(x, layer.weight, layer.bias, layer.eps)).item()
    assert mx.array_equal(plain(x), kernels.layer_norm(x, None, None, plain.eps)).item()
    assert rms(x.astype(mx.bfloat16)).dtype == mx.fast.rms_norm(x.astype(mx.bfloat16), rms.weight, rms.eps).dtype
    with pytest.raises(ValueError, match="must be float32"):
        kernels.rms_norm(x.astype(mx.bfloat16), None, 1e-5)
    with pytest.raises(ValueError, match="as long as the last axis"):
        kernels.rms_norm(x, mx.ones(23), 1e-5)
