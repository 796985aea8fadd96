"""A file of rows: JSON lines, only ever appended to, readable by pandas and `datasets`; and several as one."""

import contextlib
import fcntl
import itertools
import os
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from eval.rows.schema import Row
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import LIMIT_BYTES, open_regular, parse_json, read_bytes

_WHAT = "rows"
# How the name of a file of gzip ends; zlib's number for the format.
PACKED, _GZIP = ".gz", 31
# A curve of a hundred thousand points has less; a longer line is no record.
LIMIT_LINE_BYTES = 8 * 2**20


class RowStore:
    """Rows on disk; a killed writer loses at most the row it was writing."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, and drops a last line that a killed writer left unfinished.

        A UserError says why it cannot be written, or which line is no row.
        """
        self.path = path
        with _unwritable(path), _opened(path) as file:
            content = read_bytes(path, what=_WHAT)
            complete = content.rfind(b"\n") + 1
            if complete < len(content):
                file.truncate(complete)
        self.rows = {row.identity: row for row in _parsed(path, content[:complete].split(b"\n")[:-1])}

    def append(self, rows: Iterable[Row]) -> None:
        """Writes rows; they are on disk when this returns. A UserError says why they cannot be written."""
        new = list(rows)
        with _unwritable(self.path), self.path.open("ab") as file:
            file.write(_lines(new))
            file.flush()
            os.fsync(file.fileno())
        self.rows.update({row.identity: row for row in new})


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[RowStore]:
    """A store that no other process opens in this way at the same time; a UserError says if one does now."""
    with contextlib.ExitStack() as stack:
        with _unwritable(path):
            file = stack.enter_context(_opened(path))
            # It ends with the process, whatever ends that.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield RowStore(path)


def _opened(path: Path) -> BinaryIO:
    """The file, made if need be; no pipe, whose opening waits for a reader, and no device, which never ends."""
    if path.exists():
        open_regular(path, what=_WHAT).close()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    """What the system refuses becomes one line."""
    try:
        yield
    except BlockingIOError:
        message = f"rows must go where no other process writes; one writes to {str(path)!r} now"
        raise UserError(message) from None
    except OSError as error:
        raise UserError(f"rows must go to a file that can be written; got {str(path)!r} ({error.strerror})") from None


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(row.model_dump_json() + "\n" for row in rows).encode()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, perhaps one of gzip, the newest of each identity, in the order in which they first came.

    A last line without its end, which a writer has not finished, is left out if others come before it. A UserError says
    why the file cannot be read, or which line is no row.
    """
    content = read_bytes(path, what=_WHAT)
    *lines, unfinished = (_unpacked(path, content) if path.suffix == PACKED else content).split(b"\n")
    return _parsed(path, [unfinished] if unfinished and not lines else lines)


def rows_file(path: Path) -> Path:
    """The file itself, or of a folder, of a run or a report, that which holds its rows."""
    inside = [path / name for name in ("rows.jsonl", f"rows.jsonl{PACKED}")] if path.is_dir() else [path]
    return next((each for each in inside if each.is_file()), inside[0])


def packed(rows: Iterable[Row]) -> bytes:
    """A file of gzip that holds the rows; equal ones give equal bytes."""
    return zlib.compress(_lines(rows), level=9, wbits=_GZIP)


def _unpacked(path: Path, content: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        unpacked = unpacker.decompress(content, LIMIT_BYTES + 1)
    except zlib.error:
        raise UserError(f"{_WHAT}: {path} must be a file of gzip, as its name says; it is none") from None
    if len(unpacked) > LIMIT_BYTES:
        raise UserError(f"{_WHAT}: {path} must hold at most {LIMIT_BYTES} bytes; it holds more")
    if not unpacker.eof or unpacker.unused_data:
        raise UserError(f"{_WHAT}: {path} must be one whole file of gzip; it is cut off, or goes on behind its end")
    return unpacked


def _parsed(path: Path, lines: Sequence[bytes]) -> list[Row]:
    rows = [_row(line, where=f"{_WHAT}: {path}: line {number}") for number, line in enumerate(lines, start=1)]
    return list({row.identity: row for row in rows}.values())


def _row(line: bytes, *, where: str) -> Row:
    if len(line) > LIMIT_LINE_BYTES:
        raise UserError(f"{where} must be a row; it has more than {LIMIT_LINE_BYTES} bytes")
    try:
        # Pydantic would take NaN, and the last of two equal keys.
        parse_json(line.decode("utf-8"), where=where)
        return Row.model_validate_json(line, strict=True)
    except UnicodeDecodeError:
        raise UserError(f"{where} must be a row; it is no UTF-8 text") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] in ("missing", "json_invalid") else f"; got {shortened(first['input'])}"
        raise UserError(f"{where} must be a row; {field + ': ' if field else ''}{first['msg']}{got}") from None


def merge(*runs: Sequence[Row]) -> list[Row]:
    """All rows of several runs, in the order in which their facts first came.

    The same identity on two machines, or on one at two commits or with two versions, is two facts: both stay. On one
    machine it is one fact measured twice: the newer row counts, and of equally old ones the later run's.
    """
    return newest(itertools.chain(*runs), lambda row: (row.identity, row.machine))


def newest(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[Row]:
    """The newest row, and of equally old ones the last, of each key; in the order in which the keys come."""
    kept: dict[Hashable, Row] = {}
    for row in rows:
        name = key(row)
        if name not in kept or row.recorded_at >= kept[name].recorded_at:
            kept[name] = row
    return list(kept.values())
