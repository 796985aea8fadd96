"""Small models of every family, with sizes that differ pairwise."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map_with_path

from zoo.models import Model, ModelConfig, build_model, model_config_from_mapping

MHA = {"name": "mha", "mechanism": "softmax", "implementation": "fused"}
WINDOW = {"name": "window", "mechanism": "sliding_window", "implementation": "masked", "window_size": 5}
HYBRID = {"name": "hybrid", "layer_pattern": [WINDOW, WINDOW, MHA]}
FAMILIES = ("gpt", "bert", "llama")
LANGUAGE_MODELS = ("gpt", "llama")
POSITIONS = ("learned", "rotary", "alibi", "none")
VOCAB_SIZE, HIDDEN_SIZE, NUM_HEADS, INTERMEDIATE_SIZE, MAX_SEQ_LEN = 53, 24, 4, 40, 37


def mapping(family: str, **changes: Any) -> dict[str, Any]:
    """The mapping of a small model: two layers, four heads, two key/value heads in a Llama."""
    plain = {
        "family": family,
        "attention": MHA,
        "vocab_size": VOCAB_SIZE,
        "num_layers": 2,
        "hidden_size": HIDDEN_SIZE,
        "num_heads": NUM_HEADS,
        "num_kv_heads": 2 if family == "llama" else None,
        "intermediate_size": INTERMEDIATE_SIZE,
        "max_seq_len": MAX_SEQ_LEN,
    }
    return {**plain, **changes}


def config(family: str, **changes: Any) -> ModelConfig:
    """The config of a small model."""
    return model_config_from_mapping(mapping(family, **changes))


def model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A small model with the initial weights of this seed; typed loosely, since only encoders classify."""
    mx.random.seed(seed)
    built: Model = build_model(config(family, **changes))
    return built


def varied(built: Any, seed: int = 1) -> Any:
    """The model with large random values in every parameter, so that no part hides behind ones, zeros or smallness."""
    generator = np.random.default_rng(seed)

    def value(path: str, array: mx.array) -> mx.array:
        centre = 1.0 if array.ndim == 1 and "norm" in path and path.endswith("weight") else 0.0
        return mx.array(centre + 0.3 * generator.standard_normal(array.shape), dtype=mx.float32)

    built.update(tree_map_with_path(value, built.parameters()))
    return built


def tokens(batch_size: int, length: int, *, seed: int = 2) -> mx.array:
    """Random token ids, int32 [B, L]."""
    return mx.array(np.random.default_rng(seed).integers(0, VOCAB_SIZE, (batch_size, length)), dtype=mx.int32)


def difference(left: mx.array, right: mx.array) -> float:
    """Largest absolute difference."""
    return mx.max(mx.abs(left - right)).item()
