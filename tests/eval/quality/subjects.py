"""Models to evaluate without training any: random ones, and one that recalls perfectly as far as it can see."""

import types
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from eval.quality.evaluated import Evaluated, HeldOutText
from zoo.attention.catalog import variant_mapping
from zoo.data import TokenCorpus, prepare
from zoo.data.corpora.text import TextConfig
from zoo.data.synthetic import SyntheticTask
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping


def random_model(family: str = "gpt", **choices: Any) -> Any:
    """An untrained model of odd sizes; equal calls give equal weights."""
    mapping: dict[str, Any] = {
        "family": family,
        "attention": variant_mapping("mha"),
        "num_layers": 1,
        "hidden_size": 20,
        "num_heads": 4,
        "head_dim": 6,
        "intermediate_size": 28,
        "max_seq_len": 80,
        "init_std": 0.5,
    }
    mx.random.seed(5)
    config = model_config_from_mapping({**mapping, **choices}, tokenizer_vocab_size=BytesTokenizer().vocab_size)
    return build_model(config).eval()


def bytes_corpus(folder: Path, cache: Path) -> TokenCorpus:
    """The corpus of the tests, byte by byte, with much of it held out."""
    return prepare(TextConfig(path=str(folder), validation_fraction=0.3), BytesTokenizer(), cache_dir=cache)


def reads_text(model: Any, corpus: TokenCorpus, **choices: Any) -> Evaluated:
    """A model with held-out text."""
    settings: dict[str, Any] = {"sequence_length": 37, "batch_size": 3, "max_batches": 4, "compile": False}
    return Evaluated(
        model=model,
        data="text",
        identity=corpus.identity,
        tokenizer=corpus.tokenizer,
        text=HeldOutText(split=corpus.validation),
        task=None,
        **{**settings, **choices},
    )


def recalls(model: Any, task: SyntheticTask, **choices: Any) -> Evaluated:
    """A model with a synthetic task."""
    settings: dict[str, Any] = {"sequence_length": task.length, "batch_size": 5, "max_batches": 3, "compile": False}
    return Evaluated(
        model=model,
        data=task.name,
        identity=task.identity,
        tokenizer=None,
        text=None,
        task=task,
        **{**settings, **choices},
    )


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
