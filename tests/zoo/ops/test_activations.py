"""Activations against their definitions, and the cost that their form promises."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops import activations
from zoo.ops.activations import activation, activation_names, swiglu
from zoo.runtime.native import why_no_native

CUBIC = math.sqrt(2 / math.pi)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(CUBIC * (x + 0.044715 * x**3)))


DEFINITIONS = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}


@pytest.fixture(
    autouse=True,
    params=["mlx", pytest.param("native", marks=pytest.mark.skipif(why_no_native() is not None, reason="no kernels"))],
)
def computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "mlx":
        monkeypatch.setattr(activations, "kernels_for", lambda *arrays: None)


@pytest.fixture
def x() -> np.ndarray:
    # No point at 0, where ReLU has no derivative.
    return np.random.default_rng(0).standard_normal((3, 7, 11)) * 4


def test_every_name_is_defined_here() -> None:
    assert set(activation_names()) == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_values_equal_the_definition(name: str, x: np.ndarray) -> None:
    expected = DEFINITIONS[name](x)
    actual = np.array(activation(name)(mx.array(x, dtype=mx.float32)))
    assert np.abs(actual - expected).max() <= tolerance(mx.float32) * np.abs(expected).max()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_gradients_equal_central_differences(name: str, compiled: bool, x: np.ndarray) -> None:
    step = 1e-6
    expected = (DEFINITIONS[name](x + step) - DEFINITIONS[name](x - step)) / (2 * step)
    gradient = mx.grad(lambda x: activation(name)(x).sum())
    gradient = mx.compile(gradient) if compiled else gradient
    actual = np.array(gradient(mx.array(x, dtype=mx.float32)))
    assert np.abs(actual - expected).max() <= tolerance(mx.float32, gradient=True) * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_half_precision_stays_and_agrees(name: str, dtype: mx.Dtype, x: np.ndarray) -> None:
    array = mx.array(x, dtype=dtype)
    actual = activation(name)(array)
    assert actual.dtype == dtype
    expected = DEFINITIONS[name](np.array(array.astype(mx.float32), dtype=np.float64))
    assert np.abs(np.array(actual.astype(mx.float32)) - expected).max() <= tolerance(dtype) * np.abs(expected).max()


def test_swiglu_is_silu_of_the_gate_times_the_rest(x: np.ndarray) -> None:
    other = np.random.default_rng(1).standard_normal(x.shape)
    gate, up = mx.array(x, dtype=mx.float32), mx.array(other, dtype=mx.float32)
    expected = DEFINITIONS["silu"](x) * other
    assert np.abs(np.array(swiglu(gate, up)) - expected).max() <= tolerance(mx.float32) * np.abs(expected).max()


def test_the_approximation_is_not_the_exact_function(x: np.ndarray) -> None:
    array = mx.array(x, dtype=mx.float32)
    assert mx.abs(activation("gelu")(array) - activation("gelu_tanh")(array)).max().item() > 1e-4


def test_shapes_may_change_between_calls() -> None:
    for shape in ((2, 3), (5,), (1, 1, 7), (4, 2)):
        assert activation("gelu_tanh")(mx.ones(shape)).shape == shape
        assert activation("gelu_tanh")(mx.ones(shape, dtype=mx.bfloat16)).shape == shape
