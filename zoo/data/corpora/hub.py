"""Any data set that the `datasets` library loads: from the Hugging Face Hub, or a folder laid out like one there.

Only data files are read: the library executes no code of a data set.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.config import UserError, require
from zoo.config.files import typed_path
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import Document, Split, split_of
from zoo.data.corpora.files import SourceFile, content_of, fingerprint_files, opened
from zoo.data.corpora.records import require_field, require_text

_VALIDATION = "validation"
# What says how the files of a folder are to be read.
_CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubConfig(DataConfig):
    """A data set of the Hub.

    Attributes:
        path: Its name, such as `roneneldan/TinyStories`, or a folder; has to be given.
        name: Its configuration; None for its default one.
        revision: Branch, tag or commit; None for the newest.
        train_split: Split to train on; slices such as `train[:10%]` work where it is not streamed.
        validation_split: Another split to validate on; None for the one called validation, and without such a one a
            part of the training split.
        field: Which field of a record holds the text.
        streaming: Whether to read it from the network once, instead of downloading it first.
        max_documents: Most records to read of each split; None for all.
    """

    corpus: ClassVar[str] = "hub"

    path: str | None = None
    name: str | None = None
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    field: str = "text"
    streaming: bool = False
    max_documents: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", "name a data set of the Hub or a folder", self.path)
        require(self.field != "", "field", "name a field", self.field)
        require(self.train_split != "", "train_split", "name a split", self.train_split)
        apart = self.validation_split not in ("", self.train_split)
        require(apart, "validation_split", "name another split than train_split, or be null", self.validation_split)
        enough = self.max_documents is None or self.max_documents >= 2
        require(enough, "max_documents", "be at least 2 or null", self.max_documents)

    def open(self) -> "HubCorpus":
        return HubCorpus(self)


class HubCorpus:
    """Records in the order of the data set, the training split first."""

    def __init__(self, config: HubConfig) -> None:
        # Late, because this import takes seconds that corpora of files need not wait for.
        import datasets

        assert config.path is not None, "the config requires a path"
        _require_data_set(config.path)
        self._config = config
        self._path = str(typed_path(config.path, what="data.path")) if config.path.startswith("~") else config.path
        self._prepared = False
        with _readable(self._path):
            self._builder = datasets.load_dataset_builder(self._path, config.name, revision=config.revision)
            self._validation_split = config.validation_split
            if config.validation_split is None:
                names = datasets.get_dataset_split_names(self._path, config.name, revision=config.revision)
                self._validation_split = _VALIDATION if _VALIDATION in names else None
        self._files = _local_files(Path(self._path), self._builder.config.data_files)

    @property
    def validation_fraction(self) -> float:
        return self._config.validation_fraction

    @property
    def validation_field(self) -> str | None:
        return None if self._validation_split is None else "data.validation_split"

    def fingerprint(self) -> str:
        config = self._config
        # The builder's hash is the commit of a data set of the Hub; of a folder, a digest of files' names and times.
        where = (self._path, config.name, self._builder.hash)
        if self._files is not None:
            content = fingerprint_files((file, content_of(file)) for file in self._files)
            where = ("folder", config.name, content)
        what = (*where, config.train_split, self._validation_split)
        how = (config.field, config.max_documents, config.validation_fraction)
        return hashlib.sha256(repr((what, how)).encode()).hexdigest()

    def documents(self) -> Iterator[Document]:
        if self._validation_split is None:
            yield from self._read(self._config.train_split, None)
        else:
            yield from self._read(self._config.train_split, "train")
            yield from self._read(self._validation_split, "validation")
        for file in self._files or ():
            # Raises if it is not what it was when it was found.
            with opened(file):
                pass

    def _read(self, name: str, split: Split | None) -> Iterator[Document]:
        config = self._config
        where = f"{self._path}/{name}"
        for row, record in enumerate(self._records(name, where)):
            if row == config.max_documents:
                return
            here = f"{where}[{row}]"
            require_field(config.field, record, here)
            text = require_text(record[config.field], config.field, here)
            yield Document(text=text, source=here, split=split or split_of(text, config.validation_fraction))

    def _records(self, name: str, where: str) -> Iterator[dict[str, Any]]:
        with _readable(self._path):
            if self._config.streaming:
                data = self._builder.as_streaming_dataset(split=name)
            else:
                if not self._prepared:
                    # What the library keeps of a folder it knows by times alone, and takes for the folder's content.
                    self._builder.download_and_prepare(
                        download_mode=None if self._files is None else "force_redownload"
                    )
                    self._prepared = True
                data = self._builder.as_dataset(split=name)
            if data.column_names is not None:
                require_field(self._config.field, data.column_names, where)
                # Images and the like beside the text are never decoded.
                data = data.select_columns(self._config.field)
            yield from data


def _require_data_set(path: str) -> None:
    """Refuses the names by which the library reads files of a format: given alone, those of the current folder."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if path in _PACKAGED_DATASETS_MODULES:
        corpus = {"json": "jsonl", "parquet": "parquet"}.get(path, "text")
        raise UserError(
            f"data.path must be a data set of the Hub or a folder; got {path!r}, the library's name for a format of "
            f"files (for such files: data={corpus} data.path=FILE_OR_FOLDER; for a folder of that name: "
            f"data.path=./{path})"
        )


def _local_files(folder: Path, data_files: Mapping[str, Sequence[str]] | None) -> list[SourceFile] | None:
    """The files of a data set that is a folder, with the card that says how they are read; None of one of the Hub."""
    if not folder.is_dir():
        return None
    paths = [Path(path) for paths in (data_files or {}).values() for path in paths if "://" not in path]
    found = [path for path in (*(folder / name for name in _CARDS), *paths) if path.is_file()]
    return [SourceFile.at(path, os.path.relpath(path, folder), path.stat()) for path in found]


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns what the library raises about a data set that it cannot find or read into one line."""
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    try:
        yield
    except UserError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        # The library's message for a broken data file says nothing; what it came from does.
        telling = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        reason = " ".join(str(telling).split())
        raise UserError(f"data.path: {path!r} must be a data set that can be read; {reason}") from error
