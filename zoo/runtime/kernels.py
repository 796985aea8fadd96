"""A folder of the user's own for the kernels that MLX compiles on the CPU.

MLX keeps them in a folder `mlx` of the temporary directory, which all users of a machine share: it belongs to whoever
came first, and the others can neither write there nor trust what they load from it. Its compiler's command line does
not survive every name, and a temporary directory that is missing is an error.
"""

import contextlib
import functools
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.config import UserError
from zoo.runtime.cache import default_cache_dir

# Between double quotes a shell takes these as they are.
_PLAIN = re.compile(r"[\w\-./+:@, ]+")


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
