"""The cache on disk: folders named by what is in them, whole or not there at all.

A folder is written beside its place under the name `<key>.partial` and renamed when it is complete. Whoever writes
holds a lock that ends with its process, so what a killed process left is recognised and removed by the next one.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.config import UserError

_PARTIAL = ".partial"


def key_of(*parts: object) -> str:
    """A key from everything that decides a content; the parts' `repr` has to tell them apart."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def cached_folder(cache_dir: Path, section: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of a key; written if it is not there yet.

    Args:
        cache_dir: Root of the cache; made if needed.
        section: What kind of content.
        key: Names the content.
        write: Writes the content into the empty folder that it is given. If it raises, nothing stays.

    Returns:
        The complete folder. Processes that want the same one at the same time wait for the first.

    Raises:
        UserError: If the cache cannot be written.
    """
    folder = cache_dir / section / key
    if folder.is_dir():
        return folder
    with _writable(cache_dir):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, wait=True):
            if not folder.is_dir():
                _remove_leftovers(folder.parent)
                _write_beside(folder, write)
    return folder


def _write_beside(folder: Path, write: Callable[[Path], None]) -> None:
    partial = folder.with_name(folder.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_leftovers(section: Path) -> None:
    """Removes what killed processes left half-written."""
    for partial in section.glob(f"*{_PARTIAL}"):
        with _lock(partial.with_name(partial.name.removesuffix(_PARTIAL)), wait=False) as locked:
            if locked:
                shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock of a folder; yields whether it could be had, which it always can by waiting."""
    locks = folder.parent.parent / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / f"{folder.parent.name}-{folder.name}").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writable(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"data.cache_dir: {cache_dir} must be writable; {error}") from error
