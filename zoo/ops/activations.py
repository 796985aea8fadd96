"""Activation functions of feed-forward layers, each in the form that costs the fewest transcendental calls.

    gelu(x)      = x Φ(x)                                        with Φ the standard normal distribution
    gelu_tanh(x) = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
                 = x σ(2 √(2/π) (x + 0.044715 x³))            because (1 + tanh(u)) / 2 = σ(2u)
    silu(x)      = x σ(x)
    relu2(x)     = max(x, 0)²

GELU and its approximation: Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415; SiLU in gated layers (SwiGLU):
Shazeer, https://arxiv.org/abs/2002.05202; squared ReLU: So et al., https://arxiv.org/abs/2109.08668.

The sigmoid form needs one transcendental call forward and none backward, since σ' = σ (1 - σ) reuses the output;
with tanh, MLX on a CPU spends twice the time. In float32 on a CPU the package of kernels computes them instead, where
it is there: one pass over the arrays forward and one backward, and nothing is kept but the arguments.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, get_args

import mlx.core as mx

from zoo.ops.exponential import normal_cdf, sigmoid
from zoo.runtime.native import kernels_for

ActivationName = Literal["gelu", "gelu_tanh", "silu", "relu", "relu2"]
Activation = Callable[[mx.array], mx.array]

_TANH_SCALE = 2 * math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715


def _fused(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """One kernel outside compiled steps too, on a GPU; a CPU has no launches to save and would run a C++ compiler."""
    compiled = mx.compile(function, shapeless=True)

    @functools.wraps(function)
    def dispatch(*arrays: mx.array) -> mx.array:
        on_cpu = mx.default_device().type == mx.cpu
        return function(*arrays) if on_cpu else compiled(*arrays)

    return dispatch


def _native(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """The function of this name in the package of kernels, where it computes these arrays."""

    @functools.wraps(function)
    def dispatch(*arrays: mx.array) -> mx.array:
        kernels = kernels_for(*arrays)
        y: mx.array = function(*arrays) if kernels is None else getattr(kernels, function.__name__)(*arrays)
        return y

    return dispatch


@_native
@_fused
def gelu(x: mx.array) -> mx.array:
    """Exact GELU, any shape; BERT's activation."""
    return x * normal_cdf(x)


@_native
@_fused
def gelu_tanh(x: mx.array) -> mx.array:
    """GELU by its tanh approximation, any shape; GPT-2's activation."""
    # Multiplications, because MLX computes x**3 with pow().
    cubic = x + _TANH_CUBIC * (x * x * x)
    return x * sigmoid(_TANH_SCALE * cubic)


@_native
@_fused
def silu(x: mx.array) -> mx.array:
    """SiLU (swish), any shape."""
    return x * sigmoid(x)


def relu(x: mx.array) -> mx.array:
    """ReLU, any shape."""
    return mx.maximum(x, 0)


@_fused
def relu2(x: mx.array) -> mx.array:
    """Squared ReLU, any shape."""
    positive = mx.maximum(x, 0)
    return positive * positive


@_native
@_fused
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) · up for arrays of one shape."""
    return gate * sigmoid(gate) * up


_ACTIVATIONS: dict[ActivationName, Activation] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "relu": relu,
    "relu2": relu2,
}


def activation_names() -> tuple[ActivationName, ...]:
    """Names that `activation` accepts."""
    return get_args(ActivationName)


def activation(name: ActivationName) -> Activation:
    """The activation function of this name."""
    return _ACTIVATIONS[name]
