"""Models to evaluate without training any: random ones, and one that recalls perfectly as far as it can see."""

import types
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from eval.quality.tasks import Evaluated
from tests.zoo.training.tiny import tiny_model
from zoo.data import TextData
from zoo.data.synthetic import SyntheticTask


def random_model(family: str = "gpt", **choices: Any) -> Any:
    """An untrained model of odd sizes; equal calls give equal weights."""
    return tiny_model(**{"family": family, "num_layers": 1, "max_seq_len": 80, "init_std": 0.5, **choices}).eval()


def reads_text(model: Any, data: TextData, **choices: Any) -> Evaluated:
    """A model with held-out text."""
    settings: dict[str, Any] = {"sequence_length": 37, "batch_size": 3, "max_batches": 4, "compile": False}
    return Evaluated(model=model, data=data, **{**settings, **choices})


def recalls(model: Any, task: SyntheticTask, **choices: Any) -> Evaluated:
    """A model with a synthetic task."""
    settings: dict[str, Any] = {"sequence_length": task.length, "batch_size": 5, "max_batches": 3, "compile": False}
    return Evaluated(model=model, data=task, **{**settings, **choices})


class Recaller(nn.Module):
    """Predicts what followed the latest earlier occurrence of a token, among the last `window_size` tokens only.

    One that leaks reads the next token instead, where there is one.
    """

    def __init__(
        self, vocab_size: int, window_size: int, *, position_limit: int | None = None, leaks: bool = False
    ) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(
            causal=True, family="recaller", vocab_size=vocab_size, position_limit=position_limit
        )
        self._window_size, self._leaks = window_size, leaks
        self.eval()

    def hidden(self, tokens_BL: mx.array, **_: Any) -> mx.array:
        tokens = np.array(tokens_BL)
        guesses_BL = np.zeros_like(tokens)
        for row, here in np.ndindex(*tokens.shape):
            start = max(0, here - self._window_size + 1)
            earlier = np.flatnonzero(tokens[row, start:here] == tokens[row, here])
            if len(earlier):
                guesses_BL[row, here] = tokens[row, start + earlier[-1] + 1]
        if self._leaks:
            guesses_BL[:, :-1] = tokens[:, 1:]
        return mx.array(np.eye(self.config.vocab_size, dtype=np.float32)[guesses_BL])

    def scores(self, x_BLD: mx.array) -> mx.array:
        return 30 * x_BLD
