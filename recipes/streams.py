"""Stdout and stderr as a script uses them: results on one, progress on the other, neither able to end a run."""

import contextlib
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO, cast

from zoo.config import UserError
from zoo.config.errors import printable


def show(text: str) -> None:
    """Puts text on stdout at once; ends the job in peace if the reader has gone, as `head` and a terminal do.

    Raises:
        UserError: If stdout cannot be written, as on a full disk.
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Python would try once more at its end, and complain.
        _silence(sys.stdout.fileno())
        # A closed terminal is an input/output error.
        if error.errno in (errno.EPIPE, errno.EIO):
            sys.exit(0)
        raise UserError(f"stdout must be writable; got {error.strerror}") from None


def print_json(result: Mapping[str, Any]) -> None:
    """Puts the result on stdout, as its last line."""
    sys.stderr.flush()
    show(json.dumps(dict(result), allow_nan=False) + "\n")


class _Progress:
    """Stderr that nobody may read any more: what is said there must not cost the run that says it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            _silence(self._stream.fileno())


def open_streams() -> None:
    """Makes stdout and stderr such that neither a closed one nor a text that they cannot show costs a run."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The next file that is opened would take its place, and be written over by what is printed.
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text that the terminal cannot show must not cost the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        # Python would print on stdout what is meant for it.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    sys.stderr = cast("TextIO", _Progress(sys.stderr))


def _silence(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _PrintableFormatter(logging.Formatter):
    # The name is logging's.
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


def configure_logging() -> None:
    """Sends warnings, and what the project itself has to say, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # Of processes that were launched together, one tells what happens; all warn.
    level = logging.INFO if os.environ.get("MLX_RANK", "0") == "0" else logging.WARNING
    for package in ("zoo", "recipes", "eval"):
        logging.getLogger(package).setLevel(level)
