"""MLX primitives in C++ for processors; `zoo.ops` is what uses them, and documents what they compute."""

from importlib.metadata import version

from attention_zoo_native._built import MLX_VERSION

if (installed := version("mlx")) != MLX_VERSION:
    raise ImportError(f"built for mlx {MLX_VERSION}, but mlx {installed} is installed (`make native` mends it)")

# First, since the library that it brings is what ours calls.
import mlx.core  # noqa: F401

# isort: split
from attention_zoo_native._native import (
    adamw,
    after,
    attention,
    cross_entropy,
    descent,
    gated_delta,
    gelu,
    gelu_tanh,
    global_norm,
    isa,
    layer_norm,
    linear_attention,
    lion,
    log_sum_exp,
    muon,
    num_threads,
    rms_norm,
    rotate,
    set_num_threads,
    silu,
    softmax,
    swiglu,
)

# Another number for every change of what is exported, or of what it takes: `zoo.runtime.native` has the one it calls.
INTERFACE = 3

__all__ = [
    "adamw",
    "after",
    "attention",
    "cross_entropy",
    "descent",
    "gated_delta",
    "gelu",
    "gelu_tanh",
    "global_norm",
    "isa",
    "layer_norm",
    "linear_attention",
    "lion",
    "log_sum_exp",
    "muon",
    "num_threads",
    "rms_norm",
    "rotate",
    "set_num_threads",
    "silu",
    "softmax",
    "swiglu",
]
