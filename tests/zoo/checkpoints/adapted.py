"""A small Llama with adapters that do something."""

import mlx.core as mx
from mlx.utils import tree_map_with_path

from zoo.attention.catalog import variant
from zoo.checkpoints.adapters import weights_fingerprint
from zoo.models import build_model, model_config_from_mapping
from zoo.models.adapters import Adapters, attach_adapters

TOKENS = mx.array([[1, 5, 9, 30, 2]])
LLAMA = {
    "family": "llama",
    "vocab_size": 259,
    "num_layers": 3,
    "hidden_size": 16,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 24,
    "max_seq_len": 64,
    "tie_word_embeddings": False,
}


def ours(**fields):
    mx.random.seed(3)
    model = build_model(model_config_from_mapping({**LLAMA, "attention": variant("mha").as_mapping(), **fields}))
    mx.eval(model.parameters())
    return model


def adapted(kind, lora, *, shift=0.05):
    """A model of ours whose adapters do something."""
    model = ours()
    fingerprint = weights_fingerprint(model)
    attach_adapters(model, Adapters(kind=kind, lora=lora, base="base", base_fingerprint=fingerprint))
    model.update(
        tree_map_with_path(lambda name, x: x + shift if name.endswith("lora_b") else x, model.trainable_parameters())
    )
    model.eval()
    return model
