"""What corpora in the user's files have in common: which files, in which order, and which of them are held out."""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from zoo.config import require
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import Document, Split, split_of
from zoo.data.corpora.files import SourceFile, find_files, fingerprint_files

SplitOf = Callable[[str], Split]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesConfig(DataConfig):
    """A corpus in files of the user's.

    Attributes:
        path: File, folder or glob, or a list of these; has to be given.
        validation_path: The same for validation; None to hold out a part of `path`.
    """

    path: str | tuple[str, ...] | None = None
    validation_path: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.path is not None, "path", "name a file, folder or glob, or a list of these", self.path)
        for field, paths in (("path", self.path), ("validation_path", self.validation_path)):
            empty = paths in ("", ()) or (isinstance(paths, tuple) and "" in paths)
            require(not empty, field, "name at least one file, folder or glob", paths)


ConfigT = TypeVar("ConfigT", bound=FilesConfig)


class FileCorpus(abc.ABC, Generic[ConfigT]):
    """Documents in the order of their files."""

    def __init__(self, config: ConfigT, *, pattern: str) -> None:
        """Finds the files; `pattern` says which files of a folder count."""
        self.config = config
        assert config.path is not None, "the config requires a path"
        self.files = find_files(config.path, pattern=pattern, field="data.path")
        self.validation_files: list[SourceFile] | None = None
        if config.validation_path is not None:
            self.validation_files = find_files(config.validation_path, pattern=pattern, field="data.validation_path")

    def fingerprint(self) -> str:
        """Names, contents, and how documents are made of them."""
        files = [*self.files, *(self.validation_files or [])]
        held_out = None if self.validation_files is None else len(self.validation_files)
        config = self.config
        return fingerprint_files(files, config.corpus, config.validation_fraction, held_out, *self.settings())

    def documents(self) -> Iterator[Document]:
        """All documents, training files first."""
        split = self._by_hash if self.validation_files is None else _train
        for file in self.files:
            yield from self.read(file, split)
        for file in self.validation_files or ():
            yield from self.read(file, _validation)

    @abc.abstractmethod
    def settings(self) -> tuple[object, ...]:
        """What else decides which documents the files hold."""

    @abc.abstractmethod
    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        """The documents of a file; `split` gives the split of what a document's key identifies."""

    def _by_hash(self, key: str) -> Split:
        return split_of(key, self.config.validation_fraction)


def _train(key: str) -> Split:
    return "train"


def _validation(key: str) -> Split:
    return "validation"
