"""The one door to data: from a description of a corpus, of examples or of a synthetic task to batches of either split.

Training, fine-tuning and evaluation all open their data here, so that they see the same rows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, overload

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.data.corpora import CORPORA, DataConfig, Split, data_config_from_mapping
from zoo.data.dataset import TokenCorpus, prepare
from zoo.data.examples import (
    ExampleCorpus,
    ExampleLoader,
    ExamplesConfig,
    examples_config_from_mapping,
    prepare_examples,
)
from zoo.data.identity import DataIdentity
from zoo.data.loader import CausalLoader, MaskedTokenLoader, ProcessShare
from zoo.data.synthetic import SYNTHETIC_TASKS, SyntheticTask, synthetic_task_from_mapping
from zoo.data.tokenizers import Tokenizer, TokenizerConfig

DataSource = DataConfig | SyntheticTask
# What a checkpoint's description of its data says beside the fields of the source: digests of what came of them.
DERIVED_KEYS = frozenset({"fingerprint", "identity", "tokenizer"})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Tokens:
    """What a tokenizer made of texts.

    Attributes:
        corpus: The tokens of both splits.
    """

    corpus: TokenCorpus | ExampleCorpus

    @property
    def tokenizer(self) -> Tokenizer:
        """What made the tokens."""
        return self.corpus.tokenizer

    @property
    def vocab_size(self) -> int:
        """Of the tokenizer."""
        return self.tokenizer.vocab_size

    @property
    def identity(self) -> DataIdentity:
        """What the texts are, by their content."""
        return self.corpus.identity

    @property
    def fingerprint(self) -> str:
        """Names all that decides the tokens."""
        return self.corpus.fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TextData(_Tokens):
    """A corpus of running text in tokens.

    Attributes:
        config: Says how documents become rows.
        corpus: The tokens.
    """

    config: DataConfig
    corpus: TokenCorpus

    @property
    def name(self) -> str:
        """As in `data=NAME`."""
        return self.config.corpus

    @property
    def row_settings(self) -> dict[str, Any]:
        """What decides the rows beside their size, JSON-ready."""
        return {"packing": self.config.packing, "mask_documents": self.config.mask_documents}

    def loader(
        self,
        split: Split,
        *,
        causal: bool,
        batch_size: int,
        sequence_length: int,
        seed: int,
        share: ProcessShare | None = None,
    ) -> CausalLoader | MaskedTokenLoader:
        """Batches of a split.

        Args:
            split: Which.
            causal: Whether the next token is predicted, or hidden ones.
            batch_size: Rows at a time, of all processes.
            sequence_length: Most tokens of a row.
            seed: Of the order of training.
            share: Part of each batch that is read; None for all of it.
        """
        kind = CausalLoader if causal else MaskedTokenLoader
        return kind(
            self.corpus.train if split == "train" else self.corpus.validation,
            batch_size=batch_size,
            sequence_length=sequence_length,
            seed=seed,
            mask_documents=self.config.mask_documents,
            packing=self.config.packing,
            share=share,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExampleData(_Tokens):
    """Examples in tokens.

    Attributes:
        config: Says whether rows hold several examples.
        corpus: The tokens.
        classes: Of texts to classify, the class of each label; otherwise empty.
    """

    config: ExamplesConfig
    corpus: ExampleCorpus
    classes: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As in `data=NAME`."""
        return self.config.corpus

    @property
    def row_settings(self) -> dict[str, Any]:
        """What decides the rows beside their size, JSON-ready."""
        return {"pack": self.config.pack, "classes": list(self.classes)}

    def loader(
        self,
        split: Split,
        *,
        causal: bool,
        batch_size: int,
        sequence_length: int,
        seed: int,
        share: ProcessShare | None = None,
    ) -> ExampleLoader:
        """Batches of a split, as `TextData.loader` has them; what is predicted is up to the examples."""
        return ExampleLoader(
            self.corpus.train if split == "train" else self.corpus.validation,
            self.tokenizer,
            batch_size=batch_size,
            sequence_length=sequence_length,
            seed=seed,
            pack=self.config.pack,
            classes=self.classes,
            share=share,
        )


Data = TextData | ExampleData | SyntheticTask


@overload
def open_data(source: DataConfig, tokenizer: TokenizerConfig | Tokenizer | None, *, exact: bool = True) -> TextData: ...
@overload
def open_data(source: ExamplesConfig, tokenizer: Tokenizer | None, *, exact: bool = True) -> ExampleData: ...
@overload
def open_data(
    source: DataConfig | ExamplesConfig, tokenizer: Tokenizer | None, *, exact: bool = True
) -> TextData | ExampleData: ...
@overload
def open_data(source: DataSource, tokenizer: TokenizerConfig | Tokenizer | None, *, exact: bool = True) -> Data: ...


def open_data(
    source: DataSource | ExamplesConfig, tokenizer: TokenizerConfig | Tokenizer | None, *, exact: bool = True
) -> Data:
    """Turns texts into tokens, or finds them in the cache; a synthetic task needs no preparation.

    Args:
        source: Where texts come from, or the task.
        tokenizer: How to make a tokenizer, or a ready one, such as that of a checkpoint; None for a synthetic task.
        exact: Whether tokens must give back every text, as `prepare` says.

    Raises:
        UserError: If texts or tokenizer cannot be read, or a split would be empty.
    """
    if isinstance(source, SyntheticTask):
        return source
    assert tokenizer is not None, "text has a tokenizer"
    if isinstance(source, DataConfig):
        return TextData(config=source, corpus=prepare(source, tokenizer, exact=exact))
    assert isinstance(tokenizer, Tokenizer), "examples are learnt by checkpoints, which have one"
    return ExampleData(config=source, corpus=prepare_examples(source, tokenizer))


def data_description(data: Data) -> dict[str, Any]:
    """What checkpoints say of data: the fields of its source, and under `DERIVED_KEYS` what came of it; JSON-ready."""
    source = data if isinstance(data, SyntheticTask) else data.config
    fields = {key: value for key, value in source.as_mapping().items() if key != "cache_dir"}
    if data.tokenizer is not None and fields.get("chat_template") is not None:
        # By its content: a file of another name can hold the same.
        fields["chat_template"] = data.tokenizer.chat_source
    return {
        **fields,
        "identity": data.identity.as_mapping(),
        "tokenizer": None if data.tokenizer is None else data.tokenizer.fingerprint,
        "fingerprint": data.fingerprint,
    }


def text_source_from_mapping(mapping: Mapping[str, Any]) -> DataConfig | ExamplesConfig:
    """Builds what `configs/data/*.yaml` or a checkpoint describes, which must be texts or examples.

    Raises:
        UserError: On an unknown corpus, key or value.
    """
    if mapping.get("corpus") == ExamplesConfig.corpus:
        return examples_config_from_mapping(mapping)
    return data_config_from_mapping(mapping)


def data_source_from_mapping(mapping: Mapping[str, Any], *, path: str = "data") -> DataSource:
    """Builds what `configs/data/*.yaml` or a checkpoint describes.

    Args:
        mapping: `corpus`, which names a corpus or a task, and its fields.
        path: Config path for messages.

    Raises:
        UserError: On an unknown corpus, key or value.
    """
    corpus = mapping.get("corpus")
    if isinstance(corpus, str) and corpus in SYNTHETIC_TASKS:
        return synthetic_task_from_mapping(mapping, path=path)
    if isinstance(corpus, str) and corpus in CORPORA:
        return data_config_from_mapping(mapping, path=path)
    if corpus == ExamplesConfig.corpus:
        raise UserError(f"{path}: corpus must be text or a synthetic task; examples are for scripts/finetune.py")
    choices = ", ".join([*CORPORA, *SYNTHETIC_TASKS])
    raise UserError(f"{path}: corpus must be a known one; got {shortened(corpus)} (choices: {choices})")
