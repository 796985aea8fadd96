"""A folder of the user's own for the kernels that MLX compiles on the CPU, and a compiler that is ready for them.

MLX keeps them in a folder `mlx` of the temporary directory, which all users of a machine share: it belongs to whoever
came first, and the others can neither write there nor trust what they load from it. Its compiler's command line does
not survive every name, and a temporary directory that is missing is an error.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.config import UserError
from zoo.runtime.cache import default_cache_dir

# Between double quotes a shell takes these as they are.
_PLAIN = re.compile(r"[\w\-./+:@, ]+")
# What MLX's kernels begin with, and the flags that it compiles them with: with others a compiled header is passed over.
_HEADER = Path("mlx/backend/cpu/compiled_preamble.h")
_FLAGS = ("-std=c++17", "-O3", "-Wall", "-fPIC", "-shared")

logger = logging.getLogger(__name__)


@functools.cache
def activate() -> Path | None:
    """Gives native code, MLX above all, a temporary directory that only this user can enter; once per process.

    A process that is started from here inherits it for its Python too; this one's Python keeps what the user chose.

    Returns:
        The folder; None if there is no place for one, and MLX's own choice stays.
    """
    folder = private_folder()
    if folder is not None:
        # Not through os.environ, which `tempfile` reads.
        os.putenv("TMPDIR", str(folder))
    return folder


@functools.cache
def prepare_compiler() -> str | None:
    """Has the header that all of MLX's kernels begin with compiled once, so that each takes a sixth of the time.

    The libraries that come out are the same, but for the name of a temporary file.

    Returns:
        What the environment's `CPLUS_INCLUDE_PATH` was set to, for processes that do not inherit it; None where there
        is nothing to prepare: another system or compiler, or no place.
    """
    include = Path(str(importlib.metadata.distribution("mlx").locate_file("mlx/include")))
    compiler, shared = shutil.which("g++"), private_folder()
    if sys.platform != "linux" or compiler is None or shared is None or not (include / _HEADER).is_file():
        return None
    try:
        folder = _compiled_header(compiler, include, shared)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning(
            "MLX's kernels take longer to compile: their header could not be compiled beforehand (%s)", error
        )
        return None
    # A folder that is named here too is searched in this order, and no longer where `-I` puts it.
    ours, others = f"{folder}{os.pathsep}{include}", os.environ.get("CPLUS_INCLUDE_PATH", "")
    path = others if others.startswith(ours) else os.pathsep.join(filter(None, [ours, others]))
    os.putenv("CPLUS_INCLUDE_PATH", path)
    return path


def _compiled_header(compiler: str, include: Path, shared: Path) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(version + (include / _HEADER).read_bytes() + str(include).encode()).hexdigest()[:16]
    folder = shared / f"headers-{importlib.metadata.version('mlx')}-{key}"
    target = folder / _HEADER.with_name(f"{_HEADER.name}.gch")
    if not target.exists():
        logger.info("preparing the compiler of MLX's kernels, once on this machine (a few seconds)")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        command = [compiler, *_FLAGS, "-x", "c++-header", "-w", "-I", str(include), str(include / _HEADER)]
        subprocess.run([*command, "-o", str(partial)], capture_output=True, check=True)
        partial.replace(target)
    return folder


def private_folder() -> Path | None:
    """The first folder that can be had: in the temporary directory, where systems have one, or in the cache."""
    name = f"attention-zoo-{os.getuid()}"
    for base in _bases():
        # A process that one of ours started inherits the folder as its temporary directory.
        folder = base if base.name == name else base / name
        if not _PLAIN.fullmatch(str(folder)):
            continue
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Somebody else may have made it first, or a link in its place.
            found = folder.lstat()
        except OSError:
            continue
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        if mine and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def _bases() -> Iterator[Path]:
    # It raises where no temporary directory is usable at all.
    with contextlib.suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())
    yield from (Path("/tmp"), Path("/var/tmp"))
    try:
        yield default_cache_dir()
    except UserError:
        return
