"""A run small enough for a moment: a model of odd sizes on text that can be learned quickly."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from zoo.attention.catalog import variant_mapping
from zoo.data.loader import Batch
from zoo.data.tokenizers import BytesTokenizer, Tokenizer
from zoo.models import build_model, model_config_from_mapping
from zoo.training import (
    StopReason,
    Trainer,
    TrainingConfig,
    TrainingState,
    build_optimizer,
    open_loggers,
    optimizer_config_from_mapping,
    resume_run,
)

TOKENIZER = BytesTokenizer()
ROWS, LENGTH = 6, 13
TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 40, dtype=np.uint8).astype(np.int32)


class TinyLoader:
    """Random windows of one text, a pure function of the step."""

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows

    def batch(self, step: int) -> Batch:
        generator = np.random.default_rng((11, step))
        starts = generator.integers(0, len(TEXT) - LENGTH - 1, self.rows)
        tokens = np.stack([TEXT[start : start + LENGTH + 1] for start in starts])
        # Unequal weights: a mean over parts would differ from the mean over the batch.
        weights = (generator.random((self.rows, LENGTH)) < np.linspace(0.3, 1, self.rows)[:, None]).astype(np.float32)
        weights[:, 0] = 1
        return Batch(
            inputs_BL=tokens[:, :-1],
            targets_BL=tokens[:, 1:],
            weights_BL=weights,
            segments_BL=None,
            lengths_B=None,
            identity=f"windows at {starts.tolist()}",
        )

    def validation_batches(self, limit: int | None) -> Iterator[Batch]:
        yield from (self.batch(1_000_000 + index) for index in range(min(limit or 2, 2)))


def tiny_model(attention: str | Mapping[str, Any] = "mha", **choices: Any) -> Any:
    """A fresh language model; equal calls give equal weights."""
    mapping: dict[str, Any] = {
        "family": "gpt",
        "attention": variant_mapping(attention) if isinstance(attention, str) else attention,
        "num_layers": 2,
        "hidden_size": 20,
        "num_heads": 4,
        "head_dim": 6,
        "intermediate_size": 28,
        "max_seq_len": 17,
    }
    mx.random.seed(5)
    return build_model(model_config_from_mapping({**mapping, **choices}, tokenizer_vocab_size=TOKENIZER.vocab_size))


def tiny_optimizer(model: Any, name: str = "adamw", *, steps: int = 12, **choices: Any) -> Any:
    """An optimizer with a learning rate that suits so small a model."""
    rates = {"adamw": 1e-2, "lion": 2e-3, "muon": 2e-2}
    mapping = {"name": name, "learning_rate": rates[name], **choices}
    return build_optimizer(optimizer_config_from_mapping(mapping), model, steps=steps)


class TinyRun:
    """One run in a folder; every `go` is a new process's worth of objects."""

    def __init__(self, folder: Path, *, loader: Any = None, dropout: float = 0.0, **training: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.loader, self.dropout = folder, loader or TinyLoader(), dropout
        # Compiling costs a C++ compiler's time; the compiled step has its own test.
        plain = {"steps": 12, "batch_size": ROWS, "sequence_length": LENGTH, "log_every": 4, "compile": False}
        self.training = {**plain, **training}
        self.optimizer_choices: dict[str, Any] = {"name": "adamw"}
        self.tokenizer: Tokenizer | None = TOKENIZER

    def go(self, **changes: Any) -> tuple[StopReason, TrainingState, list[tuple[str, mx.array]]]:
        """Starts or resumes; returns what ended the run, its state, and weights and optimizer state by name."""
        config = TrainingConfig(**{**self.training, **changes})
        self.model = tiny_model(dropout=self.dropout)
        self.optimizer = tiny_optimizer(self.model, **self.optimizer_choices)
        checkpoints = self.folder / "checkpoints"
        state = resume_run(checkpoints, model=self.model, optimizer=self.optimizer, run_config={})
        loggers = open_loggers(config.loggers, self.folder, resumed_step=state.step, config={})
        trainer = Trainer(
            model=self.model,
            optimizer=self.optimizer,
            loader=self.loader,
            validation=self.loader,
            tokenizer=self.tokenizer,
            config=config,
            dtype=mx.float32,
            checkpoints=checkpoints,
            loggers=loggers,
            run_config={},
        )
        try:
            reason = trainer.train(state)
        finally:
            for each in loggers:
                each.close()
        return reason, state, self.arrays()

    def arrays(self) -> list[tuple[str, mx.array]]:
        """Weights and optimizer state by name."""
        return tree_flatten([self.model.parameters(), self.optimizer.state])


def assert_identical(left: list[tuple[str, mx.array]], right: list[tuple[str, mx.array]]) -> None:
    """Fails unless names and bits agree."""
    assert [name for name, _ in left] == [name for name, _ in right]
    different = [name for (name, a), (_, b) in zip(left, right, strict=True) if not mx.array_equal(a, b).item()]
    assert different == []
