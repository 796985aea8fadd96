"""The cache on disk: folders named by what is in them, whole or not there at all.

A folder is written beside its place under the name `<key>.partial` and renamed when it is complete. Whoever writes
holds a lock that ends with its process, so what a killed process left is recognised and removed by the next one.

The last file of a folder is its seal: size and SHA-256 sum of every other file, and a sum of these. Every opening
reads all files and compares, at about half a gigabyte a second, since a disk that was full or a machine that lost its
power can leave files of the right size with anything in them. A folder that is not as it was sealed is made anew.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.config import UserError
from zoo.config.files import open_regular, read_json_mapping, sync

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
_SEAL = "seal.json"


def key_of(*parts: object) -> str:
    """A key from everything that decides a content; the parts' `repr` has to tell them apart."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def cached_folder(cache_dir: Path, section: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of a key, every file of it checked; written if it is not there yet, or damaged.

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
    damage = _damage(folder)
    if damage is None:
        return folder
    with _writable(f"{folder} is damaged ({damage}) and" if os.path.lexists(folder) else str(cache_dir)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, wait=True):
            # Another process may have made it in the meantime.
            damage = _damage(folder)
            if damage is not None:
                _remove_leftovers(folder.parent)
                if os.path.lexists(folder):
                    logger.warning("cache: %s is damaged and made anew: %s", folder, damage)
                    _remove(folder)
                _write_beside(folder, write)
    return folder


def _damage(folder: Path) -> str | None:
    """What keeps a folder from being what was written; None if nothing does."""
    try:
        if not folder.is_dir():
            return "it is no folder"
        seal = read_json_mapping(folder / _SEAL, what="seal")
        sums = seal.get("files")
        if seal != _seal(sums):
            return "its seal is damaged"
        if sums != _sums(folder):
            return "its files are not those that were sealed"
    except (UserError, OSError) as error:
        return str(error)
    return None


def _sums(folder: Path) -> dict[str, list[int | str]]:
    """Size and SHA-256 sum of each file but the seal."""
    sums: dict[str, list[int | str]] = {}
    for path in sorted(folder.iterdir()):
        if path.name != _SEAL:
            with open_regular(path, what="cache") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                sums[path.name] = [stream.tell(), digest]
    return sums


def _seal(sums: object) -> dict[str, object]:
    return {"files": sums, "sha256": hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()}


def _remove(path: Path) -> None:
    """Removes a folder, or whatever stands in its place; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_beside(folder: Path, write: Callable[[Path], None]) -> None:
    partial = folder.with_name(folder.name + _PARTIAL)
    if os.path.lexists(partial):
        _remove(partial)
    partial.mkdir()
    try:
        write(partial)
        (partial / _SEAL).write_text(json.dumps(_seal(_sums(partial))), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        partial.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_leftovers(section: Path) -> None:
    """Removes what killed processes left half-written."""
    for partial in section.glob(f"*{_PARTIAL}"):
        with _lock(partial.with_name(partial.name.removesuffix(_PARTIAL)), wait=False) as locked:
            if locked:
                with contextlib.suppress(OSError):
                    _remove(partial)


@contextlib.contextmanager
def _lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock of a folder; yields whether it could be had, which it always can by waiting."""
    locks = folder.parent.parent / "locks"
    locks.mkdir(exist_ok=True)
    # Opened for both ways: a pipe in its place, or a lock of another user, is then a fault and never waited for.
    descriptor = os.open(locks / f"{folder.parent.name}-{folder.name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _writable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"data.cache_dir: {what} must be writable; {error}") from error
