"""Folders, and files that others write, whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo.config.files import sync

# What a folder is called that is still being written.
PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill beside its place, which is forced to the disk and renamed at the end: a kill leaves none there.

    Args:
        path: Where it shall stand: nothing yet, or an empty folder.

    Raises:
        OSError: If it cannot be written; nothing stays beside it then.
    """
    partial = path.parent / f"{PARTIAL_PREFIX}{path.name}-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        for each in (partial, *partial.rglob("*")):
            sync(each)
        partial.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write a file at, beside its place, where it comes as `new_folder` does.

    Args:
        path: Where it shall stand: nothing yet.

    Raises:
        OSError: If it cannot be written; nothing stays beside it then.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        partial.rename(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
