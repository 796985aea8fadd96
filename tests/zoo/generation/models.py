"""Small models whose text is lively enough that a misplaced token changes it."""

import functools
from typing import Any

import mlx.core as mx
import numpy as np

from tests.zoo.generation.scripted import PieceTokenizer
from zoo.attention.catalog import attention_names, variant, variant_mapping
from zoo.models import Model, build_model, model_config_from_mapping

TOKENIZER = PieceTokenizer(*"abcdefghijklmnopqrstuvwxyz")


def tiny_model(attention: str | dict[str, Any], **choices: Any) -> Any:
    """A language model of odd sizes with at least two layers, or every layer of a hybrid's pattern."""
    described = variant_mapping(attention) if isinstance(attention, str) else attention
    mapping: dict[str, Any] = {
        "family": "llama",
        "vocab_size": TOKENIZER.vocab_size,
        "num_layers": len(described.get("layer_pattern", "ab")),
        "hidden_size": 20,
        "num_heads": 4,
        "head_dim": 6,
        "intermediate_size": 22,
        "max_seq_len": 400,
        # Larger than in training, or the scores after every token would be much the same.
        "init_std": 0.8,
        "tie_word_embeddings": False,
        "attention": described,
    }
    mx.random.seed(7)
    model: Model = build_model(model_config_from_mapping({**mapping, **choices}))
    mx.eval(model.parameters())
    return model.eval()


@functools.cache
def decodable() -> tuple[str, ...]:
    """The shipped variants that can generate."""
    return tuple(
        name
        for name in attention_names()
        if all(each.capabilities.decode and not each.capabilities.refusal for each in variant(name).variants())
    )


def random_text(length: int, *, seed: int = 0) -> str:
    """A text of `length` tokens."""
    generator = np.random.default_rng(seed)
    return "".join(TOKENIZER.pieces[token] for token in generator.integers(1, TOKENIZER.vocab_size, length))


def argmax_text(model: Any, prompt: str, num_tokens: int) -> str:
    """Greedy text by full forward passes, without any cache: the meaning of generation."""
    ids = TOKENIZER.encode(prompt)
    for _ in range(num_tokens):
        # The token that ends a document has no text and would hide differences.
        logits_V = model(mx.array([ids]))[0, -1, 1:]
        ids.append(1 + int(np.argmax(np.array(logits_V))))
    return TOKENIZER.decode(ids[-num_tokens:])
