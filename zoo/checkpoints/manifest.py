"""The manifest of a checkpoint: size and SHA-256 of each file, so that no damaged byte is ever loaded.

The manifest seals itself too: its own sum covers the list of files, and its text must be exactly what
`write_manifest` writes, so that a flipped byte anywhere in the folder is found. Anybody can write a manifest, so it
says that a checkpoint is whole and never that it is harmless.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from zoo.config import UserError, from_mapping, require
from zoo.config.errors import shortened
from zoo.config.files import LIMIT_BYTES, inside, open_regular, parse_json, read_text

MANIFEST = "manifest.json"
# A checkpoint has ten files; every one is held open while it is read, and a process may open about a thousand.
_MAX_FILES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Listed:
    """A file as the manifest describes it."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        require(self.bytes >= 0, "bytes", "be at least 0", self.bytes)


class VerifiedFiles:
    """The files of a checkpoint: opened, then checked byte for byte. What the manifest does not list is not there.

    All are open before the first is read: a run that drops its older checkpoints takes nothing away from a reader.
    """

    def __init__(self, folder: Path) -> None:
        """Opens and checks every file that the manifest lists.

        Args:
            folder: A checkpoint.

        Raises:
            UserError: If the manifest is missing or damaged, or a file is missing, truncated, altered, outside the
                folder, or no regular file; names the file.
        """
        self.folder = folder
        self._streams: dict[str, BufferedReader] = {}
        with contextlib.ExitStack() as stack:
            listed = _read(folder)
            for name in listed:
                path = inside(folder, name, what="checkpoint", linked=linked_from(folder))
                self._streams[name] = stack.enter_context(open_regular(path, what="checkpoint"))
            for name, entry in listed.items():
                self._verify(name, entry)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Holds the files open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of them."""
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        """Whether the manifest lists a file."""
        return name in self._streams

    def stream(self, name: str) -> BufferedReader:
        """A file's content, from its start.

        Raises:
            UserError: If the manifest does not list it.
        """
        if name not in self._streams:
            raise UserError(f"checkpoint: {self.folder / MANIFEST} must list {name}; it lists {self._names()}")
        stream = self._streams[name]
        stream.seek(0)
        return stream

    def mapping(self, name: str) -> dict[str, Any]:
        """The object that a JSON file holds.

        Raises:
            UserError: If the manifest does not list it, or it is no JSON object.
        """
        where = f"checkpoint: {self.folder / name}"
        content = self.stream(name).read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise UserError(f"{where} must have at most {LIMIT_BYTES} bytes; it has more")
        try:
            value = parse_json(content.decode("utf-8"), where=where)
        except UnicodeDecodeError as error:
            raise UserError(f"{where} must be UTF-8; {error.reason} at byte {error.start}") from None
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a JSON object; got {type(value).__name__}")
        return value

    @contextlib.contextmanager
    def copied(self, *, without: tuple[str, ...]) -> Iterator[Path]:
        """A folder with copies of the verified files, for readers that take nothing but a folder.

        Args:
            without: Files that are left out.

        Raises:
            UserError: If there is no room for it; and any that is raised inside, in the checkpoint's own names.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="zoo-checkpoint-") as name:
                for each in self._streams.keys() - set(without):
                    copy = Path(name, each)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with copy.open("wb") as target:
                        shutil.copyfileobj(self.stream(each), target)
                try:
                    yield Path(name)
                except UserError as error:
                    raise UserError(str(error).replace(name, str(self.folder))) from error
        except OSError as error:
            reason = f"{error.strerror or error} in the temporary folder"
            raise UserError(f"checkpoint: {self.folder} must be copied to be read; {reason}") from error

    def _verify(self, name: str, entry: _Listed) -> None:
        path, stream = self.folder / name, self._streams[name]
        size = os.fstat(stream.fileno()).st_size
        if size != entry.bytes:
            state = "truncated" if size < entry.bytes else "too long"
            raise UserError(f"checkpoint: {path} must have {entry.bytes} bytes; got {size} (it is {state})")
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"checkpoint: {path} must be readable; {error.strerror or error}") from None
        if digest != entry.sha256:
            raise UserError(f"checkpoint: {path} must match its SHA-256 in {MANIFEST}; the file is damaged")

    def _names(self) -> str:
        names = sorted(self._streams)
        return f"{', '.join(map(shortened, names[:10]))}{', …' if len(names) > 10 else ''}" if names else "nothing"


def write_manifest(folder: Path) -> None:
    """Writes the manifest over every file that the folder holds.

    Raises:
        OSError: If it cannot be written.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    (folder / MANIFEST).write_text(_render(files), encoding="utf-8")


def verify_manifest(folder: Path) -> None:
    """Checks every file that the manifest lists.

    Args:
        folder: A checkpoint.

    Raises:
        UserError: As `VerifiedFiles`.
    """
    with VerifiedFiles(folder):
        pass


def linked_from(folder: Path) -> Path | None:
    """Where the Hugging Face cache keeps the content of a downloaded model, whose own folder holds links to it."""
    return folder.parents[1] / "blobs" if folder.absolute().parent.name == "snapshots" else None


def _read(folder: Path) -> dict[str, _Listed]:
    path = inside(folder, MANIFEST, what="checkpoint", linked=linked_from(folder))
    text = read_text(path, what="checkpoint", limit=2**20)
    where = f"checkpoint: {path}"
    content = parse_json(text, where=where)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or _render(files) != text:
        raise UserError(f"{where} must be as it was written; the file is damaged")
    if len(files) > _MAX_FILES:
        raise UserError(f"{where} must list at most {_MAX_FILES} files; got {len(files)}")
    listed = {}
    for name, entry in files.items():
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {shortened(name)} must be an object; got {type(entry).__name__}")
        listed[name] = from_mapping(_Listed, entry, path=f"{where}: {shortened(name)}")
    return listed


def _render(files: dict[str, Any]) -> str:
    seal = hashlib.sha256(json.dumps(files, sort_keys=True).encode("utf-8")).hexdigest()
    return json.dumps({"files": files, "sha256_of_files": seal}, indent=2, sort_keys=True) + "\n"
