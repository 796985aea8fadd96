"""Parquet files: the texts stand in one column.

Read through Arrow, the reader under the `datasets` library, because that names the file and the row of a fault.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from zoo.config import UserError
from zoo.config.errors import SHOWN
from zoo.data.corpora.document import Document
from zoo.data.corpora.file_corpus import FileCorpus, SplitOf
from zoo.data.corpora.files import SourceFile, opened
from zoo.data.corpora.records import RecordsConfig, require_field, require_text

# Rows decoded at a time; bounds memory, and is long enough for the decoder's set-up not to matter.
_ROWS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParquetConfig(RecordsConfig):
    """Parquet files; of a folder, those called `*.parquet`. `field` names the column."""

    corpus: ClassVar[str] = "parquet"

    def open(self) -> "ParquetCorpus":
        return ParquetCorpus(self)


class ParquetCorpus(FileCorpus[ParquetConfig]):
    """Rows in the order of files."""

    def __init__(self, config: ParquetConfig) -> None:
        super().__init__(config, suffix=".parquet")

    def settings(self) -> tuple[object, ...]:
        return (self.config.field,)

    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        field = self.config.field
        with opened(file):
            for row, value in enumerate(_column(file, field)):
                where = f"{file.path}[{row}]"
                text = require_text(value, field, where)
                yield Document(text=text, source=where, split=split(text))


def _column(file: SourceFile, field: str) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as table:
            names = table.schema_arrow.names
            require_field(field, names, str(file.path))
            if names.count(field) > 1:
                raise UserError(f"{file.path}: must have one column {field!r}; it has {names.count(field)}")
            for batch in table.iter_batches(batch_size=_ROWS, columns=[field]):
                yield from batch.column(0).to_pylist()
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {file.path}: column {field!r} must be UTF-8; {error.reason}") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        # Beside Arrow's own faults: dates that Python's calendar has no room for, footers that promise terabytes.
        reason = " ".join(str(error).split())[:SHOWN]
        raise UserError(f"data.path: {file.path} must be a readable Parquet file; {reason}") from None
