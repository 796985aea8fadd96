"""What generation asks of a model."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import mlx.core as mx

from zoo.config import UserError


class LanguageModel(Protocol):
    """A model that continues token sequences, as `zoo.models` builds them and mlx-lm expects them.

    Attributes:
        config: Its `causal`, `family`, `vocab_size` and `position_limit` matter here.
        training: Whether dropout is active.
    """

    config: Any

    @property
    def training(self) -> bool: ...

    def __call__(self, tokens_BL: mx.array, *, cache: list[Any]) -> mx.array:
        """Logits [B, L, V] of tokens that follow those in the cache."""

    def make_cache(self) -> list[Any]:
        """An empty cache for each layer."""

    def parameters(self) -> Any:
        """Its weights, as a tree."""

    def train(self, mode: bool = True) -> Any:
        """Switches dropout on or off."""


def require_language_model(model: LanguageModel) -> None:
    """Refuses a model that sees the future.

    Raises:
        UserError: If the model is an encoder.
    """
    config = model.config
    if not config.causal:
        raise UserError(
            f"checkpoint must hold a language model to generate text; got a {config.family} model, which is an encoder"
        )


@contextlib.contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Switches dropout off, and afterwards to what it was: a model may be asked for a sample while it trains."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
