"""Feed-forward layers against NumPy."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from zoo.layers.feed_forward import FeedForward, GatedFeedForward

D, F = 6, 10


def _weights(layer) -> dict[str, np.ndarray]:
    weights = {name: np.array(array, dtype=np.float64) for name, array in tree_flatten(layer.parameters())}
    return {**{f"{name}.bias": np.zeros(()) for name in ("gate_proj", "up_proj", "down_proj")}, **weights}


def _apply(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("bias", [False, True])
def test_the_plain_layer_is_two_projections_around_an_activation(bias: bool) -> None:
    layer = FeedForward(D, F, activation_name="silu", bias=bias)
    x_BLD = np.random.default_rng(0).standard_normal((2, 5, D))
    weights = _weights(layer)
    expected = _apply(weights, "down_proj", _silu(_apply(weights, "up_proj", x_BLD)))
    assert np.abs(np.array(layer(mx.array(x_BLD, dtype=mx.float32))) - expected).max() <= tolerance(mx.float32)
    assert layer.flops_per_token == 2 * (D * F + F * D)
    assert len(tree_flatten(layer.parameters())) == (4 if bias else 2)


@pytest.mark.parametrize("name", ["silu", "relu2"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_gated_layer_multiplies_by_the_activated_gate(bias: bool, name: str) -> None:
    layer = GatedFeedForward(D, F, activation_name=name, bias=bias)
    x_BLD = np.random.default_rng(1).standard_normal((3, 4, D))
    weights = _weights(layer)
    gate = _apply(weights, "gate_proj", x_BLD)
    activated = _silu(gate) if name == "silu" else np.maximum(gate, 0) ** 2
    expected = _apply(weights, "down_proj", activated * _apply(weights, "up_proj", x_BLD))
    assert np.abs(np.array(layer(mx.array(x_BLD, dtype=mx.float32))) - expected).max() <= tolerance(mx.float32)
    assert layer.flops_per_token == 2 * 3 * D * F
    assert len(tree_flatten(layer.parameters())) == (6 if bias else 3)
