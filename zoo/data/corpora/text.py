"""Plain text: files, folders and globs."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Literal

from zoo.data.corpora import files
from zoo.data.corpora.document import Document, Split, hash_of
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
    """Whole files are held out by a hash of their path, at least one of several; paragraphs by a hash of their text.

    Files of one content are one file to the hash, and files of one path (from several folders) are told apart by
    their content.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config, suffix="")
        single = len(self.files) == 1
        self._whole_files = config.documents == "file" or (config.documents == "auto" and not single)

    @functools.cached_property
    def _keys(self) -> dict[str, str]:
        """What is hashed of a file, by its content."""
        names: dict[str, str] = {}
        for file in self.training_files:
            if not self._is_blank(file):
                names.setdefault(self.contents[file.path].text_digest, file.name)
        uses = Counter(names.values())
        return {digest: name if uses[name] == 1 else f"{name}\0{digest}" for digest, name in names.items()}

    def _key(self, file: SourceFile) -> str:
        return self._keys.get(self.contents[file.path].text_digest, file.name)

    @functools.cached_property
    def _first_held_out(self) -> str | None:
        """The key with the smallest hash: held out whatever the fraction, if there are others to train on."""
        alone = len(self._keys) < 2 or self.validation_files is not None
        return None if alone else min(self._keys.values(), key=hash_of)

    def settings(self) -> tuple[object, ...]:
        # Runs from before know files by names alone. Where more than names decided now, their fingerprint must differ.
        more = {file.name for file in self.files if self.contents[file.path].marked}
        if self._whole_files:
            more |= {file.name for file in self.training_files if self._key(file) != file.name or self._is_odd(file)}
        return (self._whole_files, *sorted(more))

    def _is_odd(self, file: SourceFile) -> bool:
        return self._is_blank(file) and file.num_bytes > 0

    def read(self, file: SourceFile, split: SplitOf) -> Iterator[Document]:
        side: Split | None = None
        if self._whole_files:
            key = self._key(file)
            side = "validation" if key == self._first_held_out else split(key)
            for text, last in read_parts(file):
                yield Document(text=text, source=str(file.path), split=side, complete=last)
            return
        for line, text, last in _paragraphs(file):
            side = side or split(text)
            yield Document(text=text, source=f"{file.path}:{line}", split=side, complete=last)
            side = None if last else side


def _paragraphs(file: SourceFile) -> Iterator[tuple[int, str, bool]]:
    """What stands between blank lines: first line's number, text, and False where a long one goes on in the next."""
    lines: list[str] = []
    start = size = 0
    in_line = False
    for number, line in read_lines(file):
        long = not line.endswith("\n") and len(line) >= files.PART_BYTES
        if in_line or long or line.strip():
            if size >= files.PART_BYTES:
                yield start, "".join(lines), False
                lines, size = [], 0
            # A paragraph in parts keeps the line where it began.
            start = start or number
            lines.append(line)
            size += len(line)
        elif lines:
            yield start, "".join(lines), True
            lines, start, size = [], 0, 0
        in_line = bool(lines) and not line.endswith("\n")
    if lines:
        yield start, "".join(lines), True
