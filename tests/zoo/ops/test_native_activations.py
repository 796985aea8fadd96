"""Compiled activations against float64."""

import math

import mlx.core as mx
import numpy as np
import pytest

from zoo.ops import activations
from zoo.runtime.native import native_kernels, why_no_native

pytestmark = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))

NAMES = ("gelu", "gelu_tanh", "silu")
# Relative to the value, however small, down to 1e-6; relative to what cancels where a slope crosses 0.
BOUND, TINY, CANCELLED = 2e-6, 1e-6, 0.05
# More than two tasks, and a rest of a vector.
LONG = 2 * 2**14 + 5

erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(u: np.ndarray) -> np.ndarray:
    power = np.exp(-np.abs(u))
    return np.where(u < 0, power, 1) / (1 + power)


def _truth(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes in float64."""
    x = x.astype(np.float64)
    if name == "gelu":
        below = erfc(-x / math.sqrt(2)) / 2
        return x * below, below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    c = 2 * math.sqrt(2 / math.pi)
    u, du = (x, 1) if name == "silu" else (c * (x + 0.044715 * x**3), c * (1 + 3 * 0.044715 * x * x))
    return x * _sigmoid(u), _sigmoid(u) + x * _sigmoid(u) * _sigmoid(-u) * du


def _error(actual: mx.array, expected: np.ndarray, floor: float) -> float:
    return float((np.abs(np.array(actual, dtype=np.float64) - expected) / np.maximum(np.abs(expected), floor)).max())


@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_those_of_float64_far_into_both_tails(name: str) -> None:
    # Beyond, x³ of the reference would leave float32 but not float64, and everything is 0 or x.
    x = np.concatenate([np.linspace(-20, 20, 9_001), [-1e-40, 1e-40, 1e-20, 300.0, 1e30, -1e30]]).astype(np.float32)
    function = getattr(native_kernels(), name)
    value, slope = _truth(name, x)
    assert _error(function(mx.array(x)), value, TINY) <= BOUND
    assert _error(mx.grad(lambda x: function(x).sum())(mx.array(x)), slope, CANCELLED) <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_finite_number_gives_what_the_formula_gives(name: str) -> None:
    function = getattr(native_kernels(), name)
    x = mx.array([math.nan, math.inf, -math.inf, 1.0])
    # Infinity times a probability of 0 is no number.
    assert np.array_equal(np.isfinite(np.array(function(x))), [False, False, False, True])
    assert function(x)[1].item() == math.inf
    assert mx.isnan(function(x)).tolist() == [True, False, True, False]


def test_swiglu_and_both_its_gradients_are_those_of_float64() -> None:
    generator = np.random.default_rng(3)
    gate, up, dy = (generator.standard_normal((3, 7, 13)).astype(np.float32) * 5 for _ in range(3))
    y, (dgate, dup) = mx.vjp(native_kernels().swiglu, [mx.array(gate), mx.array(up)], [mx.array(dy)])
    value, slope = _truth("silu", gate)
    assert _error(y[0], value * up, TINY) <= BOUND
    outer = dy.astype(np.float64) * up
    assert np.all(np.abs(dgate - outer * slope) <= BOUND * np.abs(outer) * np.maximum(np.abs(slope), CANCELLED))
    assert _error(dup, dy * value, TINY) <= BOUND


def test_the_gradient_of_one_argument_is_that_of_both() -> None:
    gate, up = mx.random.normal((5, 3)), mx.random.normal((5, 3))
    for index in (0, 1):
        alone = mx.grad(lambda *both: native_kernels().swiglu(*both).sum(), argnums=index)(gate, up)
        both = mx.grad(lambda *both: native_kernels().swiglu(*both).sum(), argnums=(0, 1))(gate, up)
        assert mx.array_equal(alone, both[index]).item()
    doubled = mx.grad(lambda x: native_kernels().swiglu(x, x).sum())(gate)
    assert mx.allclose(doubled, sum(mx.vjp(native_kernels().swiglu, [gate, gate], [mx.ones((5, 3))])[1])).item()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (W := 8,), (W + 1, 3), (LONG,)], ids=str)
def test_every_size_gives_every_number_the_same_result(shape: tuple[int, ...]) -> None:
    x = mx.random.normal(shape, key=mx.random.key(1))
    for name in NAMES:
        function = getattr(native_kernels(), name)
        y = np.array(function(x))
        assert y.shape == shape
        # One by one, as the last of a vector.
        some = np.array(x).reshape(-1)[-3:].tolist()
        assert [function(mx.array([value]))[0].item() for value in some] == y.reshape(-1)[-3:].tolist()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    kernels = native_kernels()
    gate, up = mx.random.normal((2, LONG), key=mx.random.key(2))
    threads, results = kernels.num_threads(), []
    for count in (1, 3):
        kernels.set_num_threads(count)
        results.append([np.array(each) for each in mx.vjp(kernels.swiglu, [gate, up], [gate])[1]])
    kernels.set_num_threads(threads)
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[::2, 1::3], lambda x: mx.broadcast_to(x[:1], x.shape)])
def test_strides_do_not_matter(view) -> None:
    x = view(mx.random.normal((6, 10), key=mx.random.key(3)))
    copy = mx.array(np.array(x))
    kernels = native_kernels()
    for function in (kernels.gelu, lambda x: kernels.swiglu(x, x), lambda x: kernels.swiglu(x, mx.ones_like(x))):
        (y,), (dx,) = mx.vjp(function, [x], [x])
        (expected,), (gradient,) = mx.vjp(function, [copy], [copy])
        assert mx.array_equal(y, expected).item()
        assert mx.array_equal(dx, gradient).item()


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_that_is_used_again_holds_no_one_elses_numbers(compiled: bool) -> None:
    def values(x: mx.array) -> list[mx.array]:
        kernels = native_kernels()
        kept, gone = x * 2, x * 3
        return [kernels.swiglu(kept, gone), kernels.silu(x * 5), kernels.gelu(kept), kept, kernels.swiglu(x * 7, x * 7)]

    x = mx.random.normal((40, 50), key=mx.random.key(4))
    found = (mx.compile(values) if compiled else values)(x)
    number = np.array(x, dtype=np.float64)
    silu = lambda factor: _truth("silu", factor * number)[0]  # noqa: E731
    expected = [silu(2) * 3 * number, silu(5), _truth("gelu", 2 * number)[0], 2 * number, silu(7) * 7 * number]
    for actual, truth in zip(found, expected, strict=True):
        assert np.abs(np.array(actual) - truth).max() <= BOUND * np.abs(truth).max()


@pytest.mark.parametrize("name", [*NAMES, "swiglu"])
def test_float32_on_a_cpu_is_computed_by_the_kernels_and_nothing_else_is(name: str) -> None:
    ours, theirs = getattr(activations, name), getattr(native_kernels(), name)
    arguments = [mx.random.normal((7, 9), key=mx.random.key(seed)) for seed in range(2 if name == "swiglu" else 1)]
    assert mx.array_equal(ours(*arguments), theirs(*arguments)).item()
    assert ours(*[argument.astype(mx.bfloat16) for argument in arguments]).dtype == mx.bfloat16
    with pytest.raises(ValueError, match="must be float32"):
        theirs(*[argument.astype(mx.float16) for argument in arguments])


def test_a_gate_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        native_kernels().swiglu(mx.ones((3, 2)), mx.ones((2, 3)))
