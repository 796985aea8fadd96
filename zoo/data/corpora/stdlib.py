"""The Python standard library on this machine: its sources and its documentation topics. Needs no network.

Left out: `site-packages`, files that are not UTF-8 (tests of the decoder), and what the build wrote about its machine.
Links to folders are not followed: what they lead to is no part of the library.
"""

import ast
import dataclasses
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zoo.config import UserError, require
from zoo.config.errors import SHOWN
from zoo.config.files import typed_path
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import Document, split_of
from zoo.data.corpora.files import SourceFile, content_of, fingerprint_files, opened
from zoo.data.corpora.finding import missing_path

_LEFT_OUT_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})
_LEFT_OUT_PREFIX = "_sysconfigdata"
_TOPICS = "pydoc_data/topics.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StdlibConfig(DataConfig):
    """The standard library.

    Attributes:
        path: Folder of a standard library; None for that of the running interpreter.
    """

    corpus: ClassVar[str] = "stdlib"

    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.path != "", "path", "be a folder or null", self.path)

    def open(self) -> "StdlibCorpus":
        return StdlibCorpus(self)


class StdlibCorpus:
    """Sources in the order of their paths, then the documentation topics."""

    validation_field = None

    def __init__(self, config: StdlibConfig) -> None:
        self.validation_fraction = config.validation_fraction
        path = sysconfig.get_path("stdlib") if config.path is None else config.path
        folder = typed_path(path, what="data.path")
        if not folder.is_dir():
            raise missing_path(str(folder), "data.path", "folder of a Python standard library")
        self._files = sorted(_sources(folder), key=lambda file: file.name)

    def fingerprint(self) -> str:
        contents = ((file, content_of(file)) for file in self._files)
        return fingerprint_files(contents, "stdlib", self.validation_fraction)

    def documents(self) -> Iterator[Document]:
        topics: dict[str, str] = {}
        for file in self._files:
            try:
                with opened(file) as stream:
                    text = stream.read().decode("utf-8")
            except UnicodeDecodeError:
                continue
            if file.name == _TOPICS:
                topics = _topics(text, file)
            else:
                yield self._document(text, file.name)
        for name, text in sorted(topics.items()):
            yield self._document(text, f"{_TOPICS}: {name}")

    def _document(self, text: str, source: str) -> Document:
        return Document(text=text, source=source, split=split_of(source, self.validation_fraction))


def _sources(folder: Path) -> Iterator[SourceFile]:
    for current, subfolders, names in os.walk(folder):
        # Packages that were installed beside the library can be many times its size: they are not even looked at.
        subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT_FOLDERS]
        for name in names:
            path = Path(current, name)
            if name.endswith(".py") and not name.startswith(_LEFT_OUT_PREFIX) and path.is_file():
                yield SourceFile.at(path, path.relative_to(folder).as_posix(), path.stat())


def _topics(source: str, file: SourceFile) -> dict[str, str]:
    """The dictionary that the module of topics assigns; read, not executed."""
    try:
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign):
                return {str(name): str(text) for name, text in ast.literal_eval(statement.value).items()}
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:SHOWN]
        raise UserError(f"data.path: {file.path} must assign a dictionary of topics; {reason}") from None
    return {}
