"""What a GGUF file says about its model, as the `config.json` that the model would have in Hugging Face's layout."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from zoo.checkpoints.gguf.blocks import GROUP_SIZE
from zoo.checkpoints.gguf.header import Header
from zoo.checkpoints.gguf.weights import EMBEDDING, OUTPUT, ROPE_FACTORS, their_name, values_of
from zoo.config import UserError
from zoo.config.errors import shortened

# Named alike in Hugging Face's layout.
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_SCALING = "rope.scaling."
# Everything that may stand under an architecture's name: what is not understood might change what the model computes.
_KEYS = frozenset(
    {
        *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "attention.sliding_window", "rope.dimension_count", "rope.freq_base"),
        *(f"{_SCALING}{name}" for name in ("type", "factor", "original_context_length", "finetuned")),
        # Says how an older tool laid the rotary weights out, which is always the same way.
        "tensor_data_layout",
    }
)
# Llama 3.1's, which files hold as factors only: https://arxiv.org/abs/2407.21783.
_LOW_FREQUENCY, _HIGH_FREQUENCY, _TRAINED_LENGTH = 1.0, 4.0, 8192
_TOKENS = ("bos", "eos")


def config_of(header: Header, path: Path) -> dict[str, Any]:
    """The model's `config.json`.

    Args:
        header: Of the file.
        path: The file, which the factors of rotary positions are read from.

    Raises:
        UserError: If it is of another family, or asks for something that is not read here.
    """
    name = header.architecture
    if name not in _ARCHITECTURES:
        raise header.refusal("general.architecture", f"be one of {', '.join(_ARCHITECTURES)}")
    _require_known(header, name)
    if EMBEDDING not in header.tensors:
        raise UserError(f"{header.where} must hold {EMBEDDING}; it is missing")
    hidden_size, num_heads = (header.integer(f"{name}.{key}") for key in ("embedding_length", "attention.head_count"))
    if num_heads < 1:
        raise header.refusal(f"{name}.attention.head_count", "be at least 1")
    head_dim = header.integer(f"{name}.attention.key_length", hidden_size // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if header.integer(f"{name}.{key}", head_dim) != head_dim:
            raise header.refusal(f"{name}.{key}", f"be the width of a head, {head_dim}")
    context_length = header.integer(f"{name}.context_length")
    rotary = {"rope_theta": header.number(f"{name}.rope.freq_base", 10_000.0)} | _scaling(header, name, context_length)
    if ROPE_FACTORS in header.tensors:
        rotary |= _llama3(header, values_of(header, path, ROPE_FACTORS), head_dim, rotary)
    config: dict[str, Any] = {
        "model_type": name,
        "vocab_size": header.integer(f"{name}.vocab_size", header.tensors[EMBEDDING].shape[0]),
        "hidden_size": hidden_size,
        "intermediate_size": header.integer(f"{name}.feed_forward_length"),
        "num_hidden_layers": header.integer(f"{name}.block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": header.integer(f"{name}.attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": context_length,
        "rms_norm_eps": header.number(f"{name}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": OUTPUT not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        **{f"{word}_token_id": header.metadata.get(f"tokenizer.ggml.{word}_token_id") for word in _TOKENS},
        "rope_parameters": rotary,
    }
    window = f"{name}.attention.sliding_window"
    if window in header.metadata:
        config |= {"sliding_window": header.integer(window)}
        config |= {"model_type": "mistral"} if name == "llama" else {"use_sliding_window": True, "max_window_layers": 0}
    return config | _quantization(header)


def _require_known(header: Header, name: str) -> None:
    for key in header.metadata:
        known = not key.startswith(f"{name}.") or key.removeprefix(f"{name}.") in _KEYS
        # Files of models without experts say so.
        if not known and not (".expert_" in key and header.metadata[key] == 0):
            raise UserError(
                f"{header.where} must say nothing of its model that is not read here; got {shortened(key)}: "
                f"{shortened(header.metadata[key])}"
            )


def _scaling(header: Header, name: str, context_length: int) -> dict[str, Any]:
    """The scaling of rotary positions that the keys ask for."""
    key = f"{name}.{_SCALING}type"
    kind = header.text(key) if key in header.metadata else "none"
    if kind == "none":
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn"):
        raise header.refusal(key, "be none, linear or yarn")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": header.number(f"{name}.{_SCALING}factor")}
    if kind == "yarn":
        length = header.integer(f"{name}.{_SCALING}original_context_length", context_length)
        scaling["original_max_position_embeddings"] = length
    return scaling


def _llama3(header: Header, factors: np.ndarray, head_dim: int, rotary: dict[str, Any]) -> dict[str, Any]:
    """The scaling that a list of factors stands for, one for each frequency."""
    factor = float(factors.max())
    same = rotary["rope_type"] == "default" and factors.shape == (head_dim // 2,) and 1 <= factor < math.inf
    if same:
        frequencies = rotary["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
        turns = _TRAINED_LENGTH * frequencies / (2 * math.pi)
        smooth = np.clip((turns - _LOW_FREQUENCY) / (_HIGH_FREQUENCY - _LOW_FREQUENCY), 0, 1)
        same = np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4)
    if not same:
        must = "be the factors of Llama 3.1, whatever the largest of them is, and no other scaling beside them"
        raise UserError(f"{header.where}: {ROPE_FACTORS} must {must}; got {shortened(factors.tolist())}")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW_FREQUENCY,
        "high_freq_factor": _HIGH_FREQUENCY,
        "original_max_position_embeddings": _TRAINED_LENGTH,
    }


def _quantization(header: Header) -> dict[str, Any]:
    """Which modules are quantized, as MLX's own checkpoints say it."""
    bits = {
        their_name(header, name).removesuffix(".weight"): tensor.kind.bits
        for name, tensor in header.tensors.items()
        if tensor.kind.bits is not None
    }
    if not bits:
        return {}
    usual = {"group_size": GROUP_SIZE, "bits": min(bits.values()), "mode": "affine"}
    return {"quantization": usual | {name: {**usual, "bits": each} for name, each in bits.items()}}
