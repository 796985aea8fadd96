"""GPT and BERT in NumPy float64, read off their papers and sharing no code with the library.

Letters: B batch, L length, D hidden, N heads, H head_dim, V vocabulary.
"""

import math
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

Weights = dict[str, np.ndarray]


def weights_of(model: Any) -> Weights:
    """The model's parameters by name, in float64."""
    return {name: np.array(array, dtype=np.float64) for name, array in tree_flatten(model.parameters())}


def gpt_logits(weights: Weights, tokens_BL: np.ndarray, *, num_layers: int, num_heads: int, eps: float) -> np.ndarray:
    """GPT-2's logits, [B, L, V]."""
    length = tokens_BL.shape[1]
    allowed = np.tril(np.ones((length, length), dtype=bool))
    x = weights["embed_tokens.weight"][tokens_BL] + weights["embed_positions.weight"][:length]
    for layer in range(num_layers):
        name = f"layers.{layer}"
        x = x + _attention(weights, name, _norm(weights, f"{name}.input_layernorm", x, eps), allowed, num_heads)
        inner = _linear(weights, f"{name}.mlp.up_proj", _norm(weights, f"{name}.post_attention_layernorm", x, eps))
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + _linear(weights, f"{name}.mlp.down_proj", inner)
    return _norm(weights, "norm", x, eps) @ weights["embed_tokens.weight"].T


def bert_hidden(
    weights: Weights,
    tokens_BL: np.ndarray,
    types_BL: np.ndarray,
    lengths_B: np.ndarray,
    *,
    num_layers: int,
    num_heads: int,
    eps: float,
) -> np.ndarray:
    """BERT's last hidden states, [B, L, D]; keys from lengths_B on are padding."""
    length = tokens_BL.shape[1]
    allowed = (np.arange(length) < lengths_B[:, None])[:, None, None, :]
    x = weights["embed_tokens.weight"][tokens_BL] + weights["embed_positions.weight"][:length]
    x = _norm(weights, "embed_norm", x + weights["embed_token_types.weight"][types_BL], eps)
    for layer in range(num_layers):
        name = f"layers.{layer}"
        mixed = _attention(weights, name, x, allowed, num_heads)
        x = _norm(weights, f"{name}.attention_layernorm", x + mixed, eps)
        inner = _gelu(_linear(weights, f"{name}.mlp.up_proj", x))
        x = _norm(weights, f"{name}.output_layernorm", x + _linear(weights, f"{name}.mlp.down_proj", inner), eps)
    return x


def bert_logits(weights: Weights, hidden_BLD: np.ndarray, *, eps: float) -> np.ndarray:
    """Scores of the vocabulary from BERT's hidden states, [B, L, V]."""
    inner = _gelu(_linear(weights, "masked_token_transform.dense", hidden_BLD))
    inner = _norm(weights, "masked_token_transform.norm", inner, eps)
    return inner @ weights["embed_tokens.weight"].T + weights["masked_token_bias"]


def bert_classes(weights: Weights, hidden_BLD: np.ndarray) -> np.ndarray:
    """Scores of the classes from BERT's hidden states, [B, C]."""
    return _linear(weights, "classifier", np.tanh(_linear(weights, "pooler", hidden_BLD[:, 0])))


def _attention(weights: Weights, layer: str, x: np.ndarray, allowed: np.ndarray, num_heads: int) -> np.ndarray:
    def heads(name: str) -> np.ndarray:
        projected = _linear(weights, f"{layer}.self_attn.{name}", x)
        return projected.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)

    q, k, v = heads("q_proj"), heads("k_proj"), heads("v_proj")
    scores = np.where(allowed, q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (weight / weight.sum(axis=-1, keepdims=True)) @ v
    return _linear(weights, f"{layer}.self_attn.o_proj", mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))


def _linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, x: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
