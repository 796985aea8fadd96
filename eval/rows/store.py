"""A file of rows: JSON lines, only ever appended to, readable by pandas and `datasets`."""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from eval.rows.schema import Row
from zoo.config import UserError


class RowStore:
    """Rows on disk; a killed writer loses at most the row it was writing."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, and drops a last line that a killed writer left unfinished.

        Raises:
            UserError: If the file cannot be written, or holds something that is no row.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                content = file.read()
                complete = content.rfind(b"\n") + 1
                if complete < len(content):
                    file.truncate(complete)
        except OSError as error:
            raise _unwritable(path, error) from None
        self.rows = {row.identity: row for row in read_rows(path)}

    def append(self, rows: Iterable[Row]) -> None:
        """Writes rows; they are on disk when this returns.

        Raises:
            UserError: If the file cannot be written, for example because the disk is full.
        """
        new = list(rows)
        text = "".join(row.model_dump_json() + "\n" for row in new)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.rows.update({row.identity: row for row in new})


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, the newest of each identity, in the order in which identities first came.

    A last line without its end, which a writer has not finished, is left out if others come before it.

    Raises:
        UserError: If the file cannot be read, or a line is no row; names the line.
    """
    try:
        *lines, unfinished = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"rows must be a file of rows; got {str(path)!r} ({error.strerror})") from None
    if unfinished and not lines:
        lines = [unfinished]
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = Row.model_validate_json(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number} must be a row; it is no UTF-8 text") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: line {number} must be a row; {where}: {first['msg']}") from None
        rows[row.identity] = row
    return list(rows.values())


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[RowStore]:
    """A store that no other process opens in this way at the same time.

    Raises:
        UserError: If another one writes there now, or as for `RowStore`.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("ab"))
            # It ends with the process, whatever ends that.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"rows must go where no other process writes; one writes to {str(path)!r} now") from None
        except OSError as error:
            raise _unwritable(path, error) from None
        yield RowStore(path)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"rows must go to a file that can be written; got {str(path)!r} ({error.strerror})")
