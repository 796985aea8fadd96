"""Initial weights: normal with one standard deviation, smaller where a branch joins the residual stream.

GPT-2's rule: weights from N(0, std²), biases 0, and the last projection of each residual branch from
N(0, (std / √(2 · num_layers))²), so that the stream's variance does not grow with the depth.

Each weight's random key depends on the model's key and on the weight's name alone. Models that differ only in their
attention therefore start from the same values wherever they have the same weights.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from zoo.ops.random_keys import named_key

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
RESIDUAL_PROJECTIONS = ("o_proj", "down_proj")


def depth_scaled_std(std: float, num_layers: int) -> float:
    """Standard deviation of a residual projection in a model of `num_layers` blocks with two branches each."""
    return std / math.sqrt(2 * num_layers)


def initialise(model: nn.Module, key: mx.array, *, std: float, residual_std: float) -> None:
    """Sets the initial weights in place, lazily: nothing is computed until a weight is used.

    Embeddings, and linear layers with their biases, are set. Norms keep their ones and zeros. What an attention
    layer has beyond q_proj, k_proj, v_proj and o_proj belongs to its mechanism, which has initialised it.

    Args:
        model: A model whose attention layers are named `self_attn`.
        key: Random key, drawn before the layers were made, since mechanisms draw different amounts.
        std: Standard deviation of embeddings and projections.
        residual_std: Standard deviation of `o_proj` and `down_proj`.
    """
    for name, module in model.named_modules():
        own_name = name.rpartition(".")[2]
        if ".self_attn." in name and own_name not in ATTENTION_PROJECTIONS:
            continue
        if isinstance(module, nn.Embedding | nn.Linear):
            scale = residual_std if own_name in RESIDUAL_PROJECTIONS else std
            module.weight = mx.random.normal(module.weight.shape, scale=scale, key=named_key(key, name))
        if isinstance(module, nn.Linear) and "bias" in module:
            module.bias = mx.zeros_like(module.bias)
