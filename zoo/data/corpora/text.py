"""Plain text: files, folders and globs."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import ClassVar, Literal

from zoo.data.corpora.document import Document, hash_of
from zoo.data.corpora.file_corpus import FileCorpus, FilesConfig, SplitOf
from zoo.data.corpora.files import SourceFile, read_lines, read_parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(FilesConfig):
    """Text files.

    Attributes:
        documents: What a document is: "file": a file; "blank_line": what stands between blank lines, the blank lines
            themselves left out; "auto": "blank_line" for a single file, else "file".
    """

    corpus: ClassVar[str] = "text"

    documents: Literal["auto", "file", "blank_line"] = "auto"

    def open(self) -> "TextCorpus":
        return TextCorpus(self)


class TextCorpus(FileCorpus[TextConfig]):
    """Whole files are held out by a hash of their path, at least one of several; paragraphs by a hash of their text."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config, pattern="**/*")
        single = len(self.files) == 1
        self._whole_files = config.documents == "file" or (config.documents == "auto" and not single)

    @functools.cached_property
    def _first_held_out(self) -> str | None:
        """The file with the smallest hash: held out whatever the fraction, if there are others to train on."""
        names = [file.name for file in self.files if file.path.stat().st_size > 0]
        alone = len(names) < 2 or self.validation_files is not None
        return None if alone else min(names, key=hash_of)

    def settings(self) -> tuple[object, ...]:
        return (self._whole_files,)

    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        if self._whole_files:
            side = "validation" if file.name == self._first_held_out else split(file.name)
            for text, last in read_parts(file):
                yield Document(text=text, source=str(file.path), split=side, complete=last)
            return
        for line, text in _paragraphs(file):
            yield Document(text=text, source=f"{file.path}:{line}", split=split(text))


def _paragraphs(file: SourceFile) -> Iterator[tuple[int, str]]:
    """First line's number and text of what stands between blank lines."""
    lines: list[str] = []
    for number, line in read_lines(file):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), "".join(lines)
            lines = []
    if lines:
        yield number - len(lines) + 1, "".join(lines)
