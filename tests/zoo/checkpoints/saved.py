"""A small checkpoint with everything that a checkpoint can hold."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import save_checkpoint
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping
from zoo.training import build_optimizer, optimizer_config_from_mapping

TOKENIZER = BytesTokenizer()


def small_model(attention: str | dict[str, Any] = "mha", *, seed: int = 3, **choices: Any) -> Any:
    """A language model of odd sizes."""
    mapping = {
        "family": "gpt",
        "attention": variant_mapping(attention) if isinstance(attention, str) else attention,
        "num_layers": 2,
        "hidden_size": 12,
        "num_heads": 4,
        "head_dim": 6,
        "intermediate_size": 14,
        "max_seq_len": 19,
    }
    mx.random.seed(seed)
    return build_model(model_config_from_mapping({**mapping, **choices}, tokenizer_vocab_size=TOKENIZER.vocab_size))


def small_optimizer(model: nn.Module) -> Any:
    """An optimizer with two parts."""
    return build_optimizer(optimizer_config_from_mapping({"name": "muon", "learning_rate": 0.1}), model, steps=10)


def save_all(folder: Path, model: Any | None = None) -> Path:
    """Saves model, tokenizer, optimizer, training state and config."""
    model = model or small_model()
    return save_checkpoint(
        folder,
        model=model,
        tokenizer=TOKENIZER,
        optimizer_state=small_optimizer(model).state,
        training_state={"step": 4, "loss": 0.1 + 0.2},
        config={"seed": 3},
    )
