"""What a run learns from, whatever it is: a vocabulary, and loaders of training and validation batches."""

import copy
import dataclasses
from typing import Protocol, Self

from zoo.config import UserError, require
from zoo.data import (
    CausalLoader,
    DataConfig,
    DataIdentity,
    MaskedTokenLoader,
    SyntheticLoader,
    SyntheticTask,
    TokenCorpus,
    Tokenizer,
    TokenizerConfig,
    prepare,
)
from zoo.data.examples import ExampleCorpus, ExampleLoader, ExamplesConfig, prepare_examples
from zoo.training import TrainingBatches, TrainingConfig, ValidationBatches


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Loaders:
    """Batches of the two splits.

    Attributes:
        train: Training batches.
        validation: Validation batches.
    """

    train: TrainingBatches
    validation: ValidationBatches


class Material(Protocol):
    """What a run learns from.

    Attributes:
        vocab_size: Of its tokens.
        tokenizer: Between text and tokens; None if tokens are no text.
        identity: What the documents or rows are, by their content.
        fingerprint: Names all that decides the tokens.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def identity(self) -> DataIdentity: ...

    @property
    def fingerprint(self) -> str: ...

    def loaders(self, training: TrainingConfig, *, causal: bool, seed: int) -> Loaders:
        """Batches for a model that reads left to right, or both ways."""


class _Tokens:
    """What a tokenizer made of texts, and what that is."""

    _corpus: TokenCorpus | ExampleCorpus

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        return self._corpus.tokenizer

    @property
    def identity(self) -> DataIdentity:
        return self._corpus.identity

    @property
    def fingerprint(self) -> str:
        return self._corpus.fingerprint


class TextMaterial(_Tokens):
    """A corpus in tokens."""

    _corpus: TokenCorpus

    def __init__(self, config: DataConfig, tokenizer: TokenizerConfig | Tokenizer, *, exact: bool = True) -> None:
        """Turns the corpus into tokens, or finds them in the cache; `exact` as `prepare` takes it."""
        self._config = config
        self._corpus = prepare(config, tokenizer, exact=exact)

    def loaders(self, training: TrainingConfig, *, causal: bool, seed: int) -> Loaders:
        kind = CausalLoader if causal else MaskedTokenLoader
        train, validation = (
            kind(
                split,
                batch_size=training.batch_size,
                sequence_length=training.sequence_length,
                seed=seed,
                mask_documents=self._config.mask_documents,
                packing=self._config.packing,
            )
            for split in (self._corpus.train, self._corpus.validation)
        )
        return Loaders(train=train, validation=validation)


class ExamplesMaterial(_Tokens):
    """Examples in tokens."""

    _corpus: ExampleCorpus

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer) -> None:
        """Turns examples into tokens, or finds them in the cache."""
        self._config = config
        self._corpus = prepare_examples(config, tokenizer)
        self._classes: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[str | int, ...]:
        """Of texts to classify, what they are classified as, each once; otherwise empty."""
        return self._corpus.labels

    def with_classes(self, classes: tuple[int, ...]) -> Self:
        """This material, with a class for each label."""
        material = copy.copy(self)
        material._classes = classes
        return material

    def loaders(self, training: TrainingConfig, *, causal: bool, seed: int) -> Loaders:
        train, validation = (
            ExampleLoader(
                split,
                self.tokenizer,
                batch_size=training.batch_size,
                sequence_length=training.sequence_length,
                seed=seed,
                pack=self._config.pack,
                classes=self._classes,
            )
            for split in (self._corpus.train, self._corpus.validation)
        )
        return Loaders(train=train, validation=validation)


class SyntheticMaterial:
    """A synthetic task."""

    def __init__(self, task: SyntheticTask) -> None:
        """Takes the task, which needs no preparation."""
        self._task = task

    @property
    def vocab_size(self) -> int:
        return self._task.vocab_size

    @property
    def tokenizer(self) -> None:
        return None

    @property
    def identity(self) -> DataIdentity:
        return self._task.identity

    @property
    def fingerprint(self) -> str:
        return self._task.fingerprint

    def loaders(self, training: TrainingConfig, *, causal: bool, seed: int) -> Loaders:
        assert causal, "refused by require_fit"
        loader = SyntheticLoader(self._task, batch_size=training.batch_size, seed=seed)
        return Loaders(train=loader, validation=loader)


def require_fit(
    data: DataConfig | SyntheticTask, tokenizer: TokenizerConfig | None, training: TrainingConfig, *, causal: bool
) -> None:
    """Refuses choices that exclude each other, before any work.

    Raises:
        UserError: With what to change.
    """
    if isinstance(data, DataConfig):
        if tokenizer is None:
            raise UserError("tokenizer must be chosen for a corpus of text; got null")
        judged = training.target_accuracy is None or not causal
        condition = "be null for a language model on text, whose accuracy is not measured"
        require(judged, "training.target_accuracy", condition, training.target_accuracy)
        return
    if tokenizer is not None:
        raise UserError(f"tokenizer must be null: the tokens of data={data.name} are no text; got {tokenizer.kind}")
    if not causal:
        raise UserError(f"model must read left to right for data={data.name}; an encoder would see the answers")
    condition = f"be data.length {data.length}, the rows of data={data.name}"
    require(training.sequence_length == data.length, "training.sequence_length", condition, training.sequence_length)


def open_material(data: DataConfig | SyntheticTask, tokenizer: TokenizerConfig | None) -> Material:
    """Makes ready what `require_fit` found in order.

    Raises:
        UserError: If a corpus or its tokenizer cannot be read.
    """
    if isinstance(data, DataConfig):
        assert tokenizer is not None
        return TextMaterial(data, tokenizer)
    return SyntheticMaterial(data)
