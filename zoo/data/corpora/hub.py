"""Any data set that the `datasets` library loads: from the Hugging Face Hub, or a folder laid out like one there.

Only data files are read: the library executes no code of a data set.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, ClassVar

from zoo.config import UserError, require
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import Document, Split, split_of
from zoo.data.corpora.records import require_field, require_text

_VALIDATION = "validation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubConfig(DataConfig):
    """A data set of the Hub.

    Attributes:
        path: Its name, such as `roneneldan/TinyStories`, or a folder; has to be given.
        name: Its configuration; None for its default one.
        revision: Branch, tag or commit; None for the newest.
        train_split: Split to train on; slices such as `train[:10%]` work where it is not streamed.
        validation_split: Split to validate on; None for the one called validation, and without such a one a
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
        self._config, self._path = config, config.path
        with _readable(self._path):
            self._builder = datasets.load_dataset_builder(self._path, config.name, revision=config.revision)
            self._validation_split = config.validation_split
            if config.validation_split is None:
                names = datasets.get_dataset_split_names(self._path, config.name, revision=config.revision)
                self._validation_split = _VALIDATION if _VALIDATION in names else None

    def fingerprint(self) -> str:
        # The builder's hash is the commit of a data set of the Hub; of a folder, a digest of files' names and times.
        config = self._config
        what = (self._path, config.name, self._builder.hash, config.train_split, self._validation_split)
        how = (config.field, config.max_documents, config.validation_fraction)
        return hashlib.sha256(repr((what, how)).encode()).hexdigest()

    def documents(self) -> Iterator[Document]:
        if self._validation_split is None:
            yield from self._read(self._config.train_split, None)
        else:
            yield from self._read(self._config.train_split, "train")
            yield from self._read(self._validation_split, "validation")

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
                self._builder.download_and_prepare()
                data = self._builder.as_dataset(split=name)
            if data.column_names is not None:
                require_field(self._config.field, data.column_names, where)
                # Images and the like beside the text are never decoded.
                data = data.select_columns(self._config.field)
            yield from data


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
