"""Reading and fingerprinting files: every fault names the file, and the line where there is one."""

import codecs
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from zoo.config import UserError
from zoo.config.files import LIMIT_BYTES, open_regular

# Longer files are read in parts of about this size, so that memory stays bounded however long a document is.
PART_BYTES = 4 * 2**20
_BOM = "\ufeff"
# Enough to tell UTF-16 by.
_HEAD_BYTES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a corpus.

    Attributes:
        path: Where it is.
        name: Its path relative to the folder that was asked for: equal wherever that folder lies.
        stamp: Device, inode, size and times when it was found, by which a change since then is seen.
    """

    path: Path
    name: str
    stamp: tuple[int, ...]

    @classmethod
    def at(cls, path: Path, name: str, status: os.stat_result) -> "SourceFile":
        """The file at a path, which has this status."""
        return cls(path=path, name=name, stamp=_stamp(status))

    @property
    def real(self) -> tuple[int, int]:
        """Names the real file, whatever path leads to it."""
        return self.stamp[0], self.stamp[1]

    @property
    def num_bytes(self) -> int:
        """Its size when it was found."""
        return self.stamp[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileContent:
    """What a file holds.

    Attributes:
        digest: SHA-256 of its bytes, hexadecimal.
        text_digest: The same without the byte order mark, which is no part of the text.
        blank: Whether it holds nothing but white space.
        marked: Whether it begins with the byte order mark of UTF-8.
    """

    digest: str
    text_digest: str
    blank: bool
    marked: bool


@contextlib.contextmanager
def opened(file: SourceFile) -> Iterator[BinaryIO]:
    """A file of a corpus, open for reading.

    Raises:
        UserError: If it cannot be read, or is not what it was when it was found: then tokens would be cached under
            the name of another text.
    """
    try:
        with open_regular(file.path, what="data.path") as stream:
            _require_unchanged(file, stream)
            yield stream
            _require_unchanged(file, stream)
    except OSError as error:
        raise UserError(f"data.path: {file.path} cannot be read: {error.strerror or error}") from None


def content_of(file: SourceFile) -> FileContent:
    """Reads a file once and says what it holds.

    Raises:
        UserError: If it cannot be read.
    """
    text_digest = hashlib.sha256()
    blank = True
    mark = _BOM.encode()
    with opened(file) as stream:
        marked = stream.read(len(mark)) == mark
        digest = hashlib.sha256(mark) if marked else text_digest
        if not marked:
            stream.seek(0)
        while chunk := stream.read(PART_BYTES):
            text_digest.update(chunk)
            if marked:
                digest.update(chunk)
            blank = blank and not chunk.strip()
    return FileContent(digest=digest.hexdigest(), text_digest=text_digest.hexdigest(), blank=blank, marked=marked)


def fingerprint_files(files: Iterable[tuple[SourceFile, FileContent]], *settings: object) -> str:
    """A digest of names, contents and whatever else decides what documents come of them."""
    digest = hashlib.sha256(repr(settings).encode())
    for file, content in files:
        digest.update(f"{file.name}\0{content.digest}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def read_lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Numbers (from 1) and texts of a file's lines, line ends included, without a byte order mark.

    A line of more than `PART_BYTES` comes in several pieces of the same number, all but the last without a line end.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    number, num_bytes = 1, 0
    with opened(file) as stream:
        _require_no_utf16(file, stream)
        while True:
            piece = stream.readline(PART_BYTES)
            held_back = len(decoder.getstate()[0])
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"data.path: {file.path}:{number}: must be UTF-8; got byte 0x{error.object[error.start]:02x} at "
                    f"column {num_bytes - held_back + error.start + 1} ({error.reason})"
                ) from None
            if not piece:
                return
            if number == 1 and num_bytes == 0:
                # Some programs begin a file of UTF-8 with a mark, which is no part of the text.
                text = text.removeprefix(_BOM)
            num_bytes += len(piece)
            if text:
                yield number, text
            if piece.endswith(b"\n"):
                number, num_bytes = number + 1, 0


def read_whole_lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """As `read_lines`, each line in one piece.

    Raises:
        UserError: As `read_lines`, and on a line of more than `LIMIT_BYTES`.
    """
    pieces: list[str] = []
    length = before = 0
    for number, piece in read_lines(file):
        if pieces and number != before:
            yield before, "".join(pieces)
            pieces, length = [], 0
        before = number
        pieces.append(piece)
        length += len(piece)
        if length > LIMIT_BYTES:
            raise UserError(
                f"data.path: {file.path}:{number}: must be a line of at most {LIMIT_BYTES} bytes; it is longer"
            )
    if pieces:
        yield before, "".join(pieces)


def read_parts(file: SourceFile) -> Iterator[tuple[str, bool]]:
    """The text of a file in parts of whole lines where they are short enough, with whether the part is the last one.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    lines: list[str] = []
    size = 0
    for _, line in read_lines(file):
        # A part goes out when the next line is there, so that the last part is known to be the last.
        if size >= PART_BYTES:
            yield "".join(lines), False
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield "".join(lines), True


def _require_unchanged(file: SourceFile, stream: BinaryIO) -> None:
    if _stamp(os.fstat(stream.fileno())) != file.stamp:
        raise UserError(f"data.path: {file.path} must stay as it is while it is read; it has changed, so start again")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _require_no_utf16(file: SourceFile, stream: BinaryIO) -> None:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    # Of Latin letters in UTF-16, every second byte is zero.
    zeros = len(head) >= 4 and any(head) and (not any(head[::2]) or not any(head[1::2]))
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or zeros:
        raise UserError(
            f"data.path: {file.path}: must be UTF-8; it begins like UTF-16 (iconv -f UTF-16 -t UTF-8 converts it)"
        )
