"""What is evaluated: a trained model, the held-out data to ask it about, and how much of it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from eval.quality.predictions import Predictions, Predictor
from zoo.config import require
from zoo.data import Batch, CausalLoader, DataIdentity, MaskedTokenLoader, Tokenizer, TokenSplit
from zoo.data.corpora.config import Packing
from zoo.data.examples import ExampleLoader, ExampleSplit
from zoo.data.synthetic import SyntheticTask


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutText:
    """Text that a model was not trained on.

    Attributes:
        split: Its tokens.
        packing: How documents become rows, as in training.
        mask_documents: Whether tokens of a packed row attend only inside their own document.
    """

    split: TokenSplit
    packing: Packing = "stream"
    mask_documents: bool = False

    @property
    def row_settings(self) -> list[Any]:
        """What decides the rows beside their size, JSON-ready."""
        return [self.packing, self.mask_documents]

    def loader(
        self, *, causal: bool, batch_size: int, sequence_length: int, seed: int
    ) -> CausalLoader | MaskedTokenLoader:
        """Rows of it, with what to predict as in training."""
        kind = CausalLoader if causal else MaskedTokenLoader
        return kind(
            self.split,
            batch_size=batch_size,
            sequence_length=sequence_length,
            seed=seed,
            mask_documents=self.mask_documents,
            packing=self.packing,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutExamples:
    """Examples that a model was not trained on.

    Attributes:
        split: Their tokens.
        tokenizer: What made them.
        pack: Whether rows hold several examples.
        classes: Of texts to classify, the class of each label; otherwise empty.
    """

    split: ExampleSplit
    tokenizer: Tokenizer
    pack: bool = False
    classes: tuple[int, ...] = ()

    @property
    def row_settings(self) -> list[Any]:
        """What decides the rows beside their size, JSON-ready."""
        return [self.pack, list(self.classes)]

    def loader(self, *, causal: bool, batch_size: int, sequence_length: int, seed: int) -> ExampleLoader:
        """Rows of them, with what to predict as in training."""
        return ExampleLoader(
            self.split,
            self.tokenizer,
            batch_size=batch_size,
            sequence_length=sequence_length,
            seed=seed,
            pack=self.pack,
            classes=self.classes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """A trained model with what it is asked about.

    Attributes:
        model: Of `zoo.models`, in evaluation mode.
        data: Name of the data.
        identity: What the data is, by its content.
        tokenizer: Its own, or None for a model of a synthetic task.
        text: Held-out text or examples, or None for a model of a synthetic task.
        task: The synthetic task that the model was trained on, or None for text.
        original: The model before its attention was exchanged, or None if it was not.
        surgery: What exchanging it did, JSON-ready, or None.
        sequence_length: Tokens of a row in training.
        batch_size: Rows at a time.
        max_batches: Most batches of one figure, or None for all there are.
        max_rows: Most rows of text of the trained length, whatever the size of a batch; None for no other limit.
        seed: Of whatever a task draws.
        dtype: Of the forward pass.
        compile: Whether graphs are compiled.
    """

    model: Any
    data: str
    identity: DataIdentity
    tokenizer: Tokenizer | None
    text: HeldOutText | HeldOutExamples | None
    task: SyntheticTask | None
    original: Any = None
    surgery: Mapping[str, Any] | None = None
    sequence_length: int
    batch_size: int
    max_batches: int | None = None
    max_rows: int | None = None
    seed: int = 0
    dtype: mx.Dtype = mx.float32
    compile: bool = True

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", "be at least 1", self.batch_size)
        require(self.sequence_length >= 1, "sequence_length", "be at least 1", self.sequence_length)
        enough = self.max_batches is None or self.max_batches >= 1
        require(enough, "max_batches", "be at least 1 or null", self.max_batches)
        fits = self.text is None or not self.too_long(self.sequence_length)
        limit = f"be at most the model's max_seq_len {self.model.config.position_limit} with learned positions"
        require(fits, "sequence_length", limit, self.sequence_length)

    @property
    def causal(self) -> bool:
        """Whether the model reads left to right."""
        return bool(self.model.config.causal)

    @property
    def family(self) -> str:
        """The model's family."""
        return str(self.model.config.family)

    def too_long(self, length: int) -> bool:
        """Whether the model cannot process a row of this length at all."""
        limit = self.model.config.position_limit
        return limit is not None and length > limit

    def predictor(self, model: Any = None) -> Predictor:
        """The model, or one made of it, ready to be asked."""
        chosen = self.model if model is None else model
        lengths_V = self.byte_lengths()
        return Predictor(chosen, dtype=self.dtype, compiled=self.compile, token_byte_lengths_V=lengths_V)

    def byte_lengths(self) -> np.ndarray | None:
        """UTF-8 bytes of what the model predicts, int32; None where that stands for no text."""
        if self.tokenizer is None or self.model.config.classifies:
            return None
        return self.tokenizer.token_byte_lengths()

    @functools.cached_property
    def text_predictions(self) -> Predictions:
        """The predictions of the held-out text in rows as long as in training: several tasks look at the same ones.

        Raises:
            UserError: If the text is too short for one row.
        """
        return self.predictor().all(self.text_batches())

    def text_batches(self, *, shrink: int = 1) -> Iterator[Batch]:
        """Rows of the held-out text, with what to predict as in training.

        Args:
            shrink: Rows are this many times longer than in training, and so many fewer: the same amount of text.

        Raises:
            UserError: If the text is too short for one row.
        """
        loader, num_rows = self._loader(shrink), self._num_wanted_rows(shrink)
        batch_size = max(1, self.batch_size // shrink)
        limit = None if num_rows is None else -(-num_rows // batch_size)
        for number, batch in enumerate(loader.validation_batches(limit)):
            weights_BL = batch.weights_BL
            if num_rows is not None and (rest := num_rows - number * batch_size) < batch_size:
                weights_BL = weights_BL * (np.arange(batch_size) < rest)[:, None].astype(np.float32)
            yield dataclasses.replace(batch, weights_BL=weights_BL)

    @property
    def num_text_rows(self) -> int:
        """Rows that `text_batches` looks at."""
        wanted, there = self._num_wanted_rows(1), self._loader(1).num_validation_rows
        return there if wanted is None else min(wanted, there)

    def _num_wanted_rows(self, shrink: int) -> int | None:
        limits = [] if self.max_batches is None else [self.max_batches * self.batch_size]
        limits += [] if self.max_rows is None else [self.max_rows]
        return -(-min(limits) // shrink) if limits else None

    def _loader(self, shrink: int) -> CausalLoader | MaskedTokenLoader | ExampleLoader:
        assert self.text is not None, "text is asked for by tasks of text only"
        return self.text.loader(
            causal=self.causal,
            batch_size=max(1, self.batch_size // shrink),
            sequence_length=self.sequence_length * shrink,
            seed=self.seed,
        )
