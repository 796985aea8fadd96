"""JSON lines: one object a line, its text in one field.

Read line by line and not through the `datasets` library, whose reader names neither file nor line of a fault and
wants every other field to have one type throughout.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, ClassVar

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.data.corpora.document import Document
from zoo.data.corpora.file_corpus import FileCorpus, SplitOf
from zoo.data.corpora.files import SourceFile, read_whole_lines
from zoo.data.corpora.records import RecordsConfig, require_field, require_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlConfig(RecordsConfig):
    """Files of JSON lines; of a folder, those called `*.jsonl`."""

    corpus: ClassVar[str] = "jsonl"

    def open(self) -> "JsonlCorpus":
        return JsonlCorpus(self)


class JsonlCorpus(FileCorpus[JsonlConfig]):
    """Objects in the order of files and lines. Blank lines are no objects."""

    def __init__(self, config: JsonlConfig) -> None:
        super().__init__(config, suffix=".jsonl")

    def settings(self) -> tuple[object, ...]:
        return (self.config.field,)

    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        for number, line in read_whole_lines(file):
            if line.strip():
                where = f"{file.path}:{number}"
                text = _text(line, self.config.field, where)
                yield Document(text=text, source=where, split=split(text))


def _text(line: str, field: str, where: str) -> str:
    names: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Objects are complete from the inside out: the record's own names are the last ones noted.
        names[:] = [name for name, _ in pairs]
        return dict(pairs)

    try:
        record = json.loads(line, object_pairs_hook=noted)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: must be a JSON object; {error.msg} at column {error.colno}") from None
    except ValueError as error:
        # Numbers of thousands of digits.
        raise UserError(f"{where}: must be a JSON object; {error}") from None
    except RecursionError:
        raise UserError(f"{where}: must be a JSON object; it is nested too deeply") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be a JSON object; got {type(record).__name__}")
    require_field(field, record, where)
    if names.count(field) > 1:
        raise UserError(f"{where}: must name field {shortened(field)} once; it is there {names.count(field)} times")
    return require_text(record[field], field, where)
