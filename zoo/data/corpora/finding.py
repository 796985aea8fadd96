"""Finding the files of a corpus: each real file once, however it is spelled, linked or named twice.

Names are what a user sees of a file, so they begin where the user pointed: below the folder that was asked for.
"""

import difflib
import fnmatch
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from zoo.config import UserError
from zoo.config.files import typed_path
from zoo.data.corpora.files import SourceFile

logger = logging.getLogger(__name__)

_LISTED = 8


def find_files(paths: str | tuple[str, ...], *, suffix: str, field: str) -> list[SourceFile]:
    """Finds the files that paths stand for.

    Links are followed, to files and to folders. A part of a path that exists by its very name is that, even if it
    could be read as a wildcard.

    Args:
        paths: Files, folders or globs. `~` stands for the home folder.
        suffix: How the files of a folder end that count; hidden ones never do.
        field: Config path for messages.

    Returns:
        Each real file once, under the first name that is no link; for each path in turn, sorted by name.

    Raises:
        UserError: If a path stands for no file.
    """
    found: dict[tuple[int, int], SourceFile] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        try:
            files = _find(path, suffix, field)
        except OSError as error:
            raise UserError(f"{field}: {error.filename or path} cannot be read: {error.strerror}") from None
        if not files:
            raise UserError(f"{field}: {path} must hold at least one file *{suffix}; got none")
        for file in files:
            found.setdefault(file.real, file)
    return list(found.values())


def glob_matches(pattern: Path) -> list[Path]:
    """Files and folders that a glob stands for, in alphabetical order; none if it has no wildcard.

    A part of it that exists by its very name is that, even if it could be read as a wildcard. Hidden ones do not count.

    Raises:
        OSError: If a folder cannot be read.
    """
    root, rest = _split_glob(pattern)
    return sorted({root / name for name in _matches(root, "", rest)}) if rest else []


def missing_path(path: str, field: str, wanted: str) -> UserError:
    """What to say about a path that leads nowhere: with what there is to choose from where it was looked for."""
    here = typed_path(path, what=field)
    folder = here.parent
    if here.is_symlink():
        return UserError(f"{field} must be an existing {wanted}; got {path!r}, a link that leads nowhere")
    if not folder.is_dir():
        return UserError(f"{field} must be an existing {wanted}; got {path!r}, and there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(here.name, names)
    names = [*close, *(name for name in names if name not in close)]
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return UserError(
        f"{field} must be an existing {wanted}; got {path!r} (choices in {folder.resolve()}: {listed or 'none'})"
    )


def _find(path: str, suffix: str, field: str) -> list[SourceFile]:
    here = typed_path(path, what=field)
    status = _status(here)
    if status is not None and stat.S_ISREG(status.st_mode):
        return [SourceFile.at(here, here.name, status)]
    if status is not None and stat.S_ISDIR(status.st_mode):
        names = (name for folder in _folders(here) for name in _entries(here, folder) if name.endswith(suffix))
        return _sources(here, names, field)
    if status is not None:
        raise UserError(f"{field} must be a file, folder or glob; got {path!r}, a pipe, a socket or a device")
    root, rest = _split_glob(here)
    if not rest:
        raise missing_path(path, field, "file, folder or glob")
    return _sources(root, _matches(root, "", rest), field)


def _sources(root: Path, names: Iterator[str], field: str) -> list[SourceFile]:
    """The regular files among names below a folder; of several names of one file the one that is least a link."""
    found: dict[tuple[int, int], SourceFile] = {}
    left_out = []
    for name in sorted(set(names)):
        status = _status(root / name)
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            left_out.append(name)
        elif stat.S_ISREG(status.st_mode):
            file = SourceFile.at(root / name, name, status)
            known = found.get(file.real)
            if known is None or (_is_linked(root, known.name) and not _is_linked(root, name)):
                found[file.real] = file
    if left_out:
        listed = ", ".join(map(repr, left_out[:_LISTED])) + (", …" if len(left_out) > _LISTED else "")
        logger.warning("%s: left out of %s, since they are no files: %s", field, root, listed)
    return sorted(found.values(), key=lambda file: file.name)


def _folders(root: Path) -> Iterator[str]:
    """A folder ("") and all visible ones below it, real ones before linked ones, each real folder once."""
    here, linked, visited = [""], list[str](), set[tuple[int, int]]()
    while here or linked:
        name = here.pop() if here else linked.pop(0)
        status = (root / name).stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        yield name
        for child in sorted(_entries(root, name), reverse=True):
            if (root / child).is_dir():
                (linked if (root / child).is_symlink() else here).append(child)
        linked.sort()


def _entries(root: Path, folder: str) -> Iterator[str]:
    """Names below the root of what lies in one of its folders, without hidden ones."""
    return (_below(folder, each.name) for each in (root / folder).iterdir() if not each.name.startswith("."))


def _matches(root: Path, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
    """What a glob stands for, part by part."""
    part, rest = parts[0], parts[1:]
    if not _has_wildcard(part) or os.path.lexists(root / folder / part):
        matching = iter([_below(folder, part)] if os.path.lexists(root / folder / part) else [])
    elif part == "**":
        matching = (_below(folder, name) for name in _folders(root / folder))
    else:
        names = (each.name for each in (root / folder).iterdir())
        visible = (name for name in names if part.startswith(".") or not name.startswith("."))
        matching = (_below(folder, name) for name in visible if fnmatch.fnmatchcase(name, part))
    for name in matching:
        if not rest:
            yield name
        elif (root / name).is_dir():
            yield from _matches(root, name, rest)


def _split_glob(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a glob starts from, and the parts below it; none if nothing in it is a wildcard."""
    parts = pattern.parts
    for index, part in enumerate(parts):
        root = Path(*parts[:index])
        if _has_wildcard(part) and root.is_dir() and not os.path.lexists(root / part):
            # By itself, ** stands for folders only.
            return root, (*parts[index:], "*") if parts[-1] == "**" else parts[index:]
    return pattern, ()


def _has_wildcard(text: str) -> bool:
    return any(wildcard in text for wildcard in "*?[")


def _below(folder: str, name: str) -> str:
    return "/".join(part for part in (folder, name) if part)


def _is_linked(root: Path, name: str) -> bool:
    parts = name.split("/")
    return any((root / "/".join(parts[:end])).is_symlink() for end in range(1, len(parts) + 1))


def _status(path: Path) -> os.stat_result | None:
    """What a path leads to; None if it leads nowhere."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # Links in a circle lead nowhere.
        if path.is_symlink() and not isinstance(error, PermissionError):
            return None
        raise
