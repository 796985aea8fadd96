"""Finding, fingerprinting and reading files: every fault names the file, and the line where there is one."""

import dataclasses
import difflib
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.config import UserError

# Longer files are read in parts of about this size, so that memory stays bounded however long a document is.
PART_BYTES = 4 * 2**20
_LISTED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a corpus.

    Attributes:
        path: Where it is.
        name: Its path relative to the folder that was asked for: equal wherever that folder lies.
    """

    path: Path
    name: str


def find_files(paths: str | tuple[str, ...], *, pattern: str, field: str) -> list[SourceFile]:
    """Finds the files that paths stand for.

    Args:
        paths: Files, folders or globs. `~` stands for the home folder.
        pattern: Which files of a folder count, as a glob below it; hidden ones never do.
        field: Config path for messages.

    Returns:
        Each file once; for each path in turn, sorted by name.

    Raises:
        UserError: If a path stands for no file.
    """
    found: dict[Path, SourceFile] = {}
    for path in (paths,) if isinstance(paths, str) else paths:
        try:
            files = _find(path, pattern, field)
        except OSError as error:
            raise UserError(f"{field}: {path} cannot be read: {error.strerror}") from None
        if not files:
            raise UserError(f"{field}: {path} must hold at least one file {pattern}; got none")
        for file in files:
            found.setdefault(file.path, file)
    return list(found.values())


def fingerprint_files(files: Iterable[SourceFile], *settings: object) -> str:
    """A digest of names, contents and whatever else decides what documents come of them."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        with _opened(file) as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name}\0{content}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def read_lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Numbers (from 1) and texts of a file's lines, line ends included.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    # A file is decoded line by line, since no other character of UTF-8 contains the byte of a line end.
    with _opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"data.path: {file.path}:{number}: must be UTF-8; "
                    f"got byte 0x{line[error.start]:02x} at column {error.start + 1} ({error.reason})"
                ) from None


def read_parts(file: SourceFile) -> Iterator[tuple[str, bool]]:
    """The text of a file in parts of whole lines, with whether the part is the last one.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    lines: list[str] = []
    size = 0
    for _, line in read_lines(file):
        # A part goes out when the next line is there, so that the last part is known to be the last.
        if size >= PART_BYTES:
            yield "".join(lines), False
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield "".join(lines), True


def missing_path(path: str, field: str, wanted: str) -> UserError:
    """What to say about a path that leads nowhere: with what there is to choose from where it was looked for."""
    folder = Path(path).expanduser().parent
    if not folder.is_dir():
        return UserError(f"{field} must be an existing {wanted}; got {path!r}, and there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(Path(path).name, names)
    names = [*close, *(name for name in names if name not in close)]
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return UserError(
        f"{field} must be an existing {wanted}; got {path!r} (choices in {folder.resolve()}: {listed or 'none'})"
    )


def _opened(file: SourceFile) -> io.BufferedReader:
    try:
        return file.path.open("rb")
    except OSError as error:
        raise UserError(f"data.path: {file.path} cannot be read: {error.strerror}") from None


def _find(path: str, pattern: str, field: str) -> list[SourceFile]:
    here = Path(path).expanduser()
    if here.is_file():
        return [SourceFile(path=here, name=here.name)]
    if here.is_dir():
        names = sorted(file.relative_to(here).as_posix() for file in here.glob(pattern) if file.is_file())
        return [SourceFile(path=here / name, name=name) for name in names if not _is_hidden(name)]
    if _has_wildcard(path):
        root, rest = _split_glob(here)
        names = sorted(file.relative_to(root).as_posix() for file in root.glob(rest) if file.is_file())
        return [SourceFile(path=root / name, name=name) for name in names if not _is_hidden(name)]
    raise missing_path(path, field, "file, folder or glob")


def _has_wildcard(text: str) -> bool:
    return any(wildcard in text for wildcard in "*?[")


def _split_glob(pattern: Path) -> tuple[Path, str]:
    """The folder that a glob starts from, and the glob below it."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if _has_wildcard(part))
    # By itself, ** stands for folders only.
    rest = (*parts[first:], "*") if parts[-1] == "**" else parts[first:]
    return Path(*parts[:first]), "/".join(rest)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
