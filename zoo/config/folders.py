"""Folders that are written whole or not at all."""

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
