"""What corpora in the user's files have in common: which files, in which order, and which of them are held out."""

import abc
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from zoo.config import UserError, require
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import Document, Split, split_of
from zoo.data.corpora.files import FileContent, SourceFile, content_of, fingerprint_files
from zoo.data.corpora.finding import find_files

logger = logging.getLogger(__name__)

SplitOf = Callable[[str], Split]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilesConfig(DataConfig):
    """A corpus in files of the user's.

    Attributes:
        path: File, folder or glob, or a list of these; has to be given.
        validation_path: The same for validation, whose files are not trained on even if `path` holds them or copies
            of them; None to hold out a part of `path`.
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

    def __init__(self, config: ConfigT, *, suffix: str) -> None:
        """Finds the files; `suffix` says which files of a folder count."""
        self.config = config
        assert config.path is not None, "the config requires a path"
        self.files = find_files(config.path, suffix=suffix, field="data.path")
        self.validation_files: list[SourceFile] | None = None
        if config.validation_path is not None:
            self.validation_files = find_files(config.validation_path, suffix=suffix, field="data.validation_path")

    @property
    def validation_fraction(self) -> float:
        return self.config.validation_fraction

    @property
    def validation_field(self) -> str | None:
        return None if self.validation_files is None else "data.validation_path"

    @functools.cached_property
    def contents(self) -> dict[Path, FileContent]:
        """What each file holds, by its path."""
        return {file.path: content_of(file) for file in (*self.files, *(self.validation_files or ()))}

    @functools.cached_property
    def training_files(self) -> list[SourceFile]:
        """The files of `path` but for those of `validation_path` and copies of them; of nothing but copies, one file.

        Raises:
            UserError: If none is left.
        """
        if self.validation_files is None:
            return self._without_mere_copies()
        held_out = {file.real for file in self.validation_files}
        texts = {self.contents[file.path].text_digest for file in self.validation_files if not self._is_blank(file)}
        left = [
            file
            for file in self.files
            if file.real not in held_out and self.contents[file.path].text_digest not in texts
        ]
        num_left_out = len(self.files) - len(left)
        if not left:
            raise UserError(
                f"data.path must hold files that are not in data.validation_path as well; all {num_left_out} are"
            )
        if num_left_out:
            logger.warning("data.path: %d file(s) are held out by data.validation_path", num_left_out)
        return left

    def fingerprint(self) -> str:
        """Names, contents, and how documents are made of them."""
        files = [*self.training_files, *(self.validation_files or [])]
        held_out = None if self.validation_files is None else len(self.validation_files)
        config = self.config
        contents = ((file, self.contents[file.path]) for file in files)
        return fingerprint_files(contents, config.corpus, config.validation_fraction, held_out, *self.settings())

    def documents(self) -> Iterator[Document]:
        """All documents, training files first."""
        split = self._by_hash if self.validation_files is None else _train
        for file in self.training_files:
            yield from self.read(file, split)
        for file in self.validation_files or ():
            yield from self.read(file, _validation)

    @abc.abstractmethod
    def settings(self) -> tuple[object, ...]:
        """What else decides which documents the files hold."""

    @abc.abstractmethod
    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        """The documents of a file; `split` gives the split of what a document's key identifies."""

    def _without_mere_copies(self) -> list[SourceFile]:
        """All files, or the first if the others are copies of it: that is one text, to be cut in two."""
        with_text = [file for file in self.files if not self._is_blank(file)]
        if len({self.contents[file.path].text_digest for file in with_text}) != 1 or len(with_text) == 1:
            return self.files
        logger.warning("data.path: its %d files are copies of one, which is read once", len(with_text))
        return with_text[:1]

    def _is_blank(self, file: SourceFile) -> bool:
        return self.contents[file.path].blank

    def _by_hash(self, key: str) -> Split:
        return split_of(key, self.config.validation_fraction)


def _train(key: str) -> Split:
    return "train"


def _validation(key: str) -> Split:
    return "validation"
