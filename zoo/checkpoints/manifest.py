"""The manifest of a checkpoint: size and SHA-256 of each file, so that no damaged byte is ever loaded.

The manifest seals itself too: its own sum covers the list of files, and its text must be exactly what
`write_manifest` writes, so that a flipped byte anywhere in the folder is found.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from zoo.config import UserError

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes the manifest over every file that the folder holds."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        entry = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        files[path.relative_to(folder).as_posix()] = entry
    (folder / MANIFEST).write_text(_render(files), encoding="utf-8")


def verify_manifest(folder: Path) -> None:
    """Checks every file that the manifest lists.

    Args:
        folder: A checkpoint.

    Raises:
        UserError: If the manifest is missing, or a file is missing, truncated or altered; names the file.
    """
    path = folder / MANIFEST
    files = _read(path)
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"checkpoint: {file} must exist, since {MANIFEST} lists it; it is missing")
        size = file.stat().st_size
        if size != entry["bytes"]:
            state = "truncated" if size < entry["bytes"] else "too long"
            raise UserError(f"checkpoint: {file} must have {entry['bytes']} bytes; got {size} (it is {state})")
        if _sha256(file) != entry["sha256"]:
            raise UserError(f"checkpoint: {file} must match its SHA-256 in {MANIFEST}; the file is damaged")


def sync_folder(folder: Path) -> None:
    """Forces every file below a folder, and the folder itself, to the disk."""
    for path in (folder, *folder.rglob("*")):
        sync(path)


def sync(path: Path) -> None:
    """Forces one file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint: {path} must be readable; {error.strerror}") from None
    damaged = UserError(f"checkpoint: {path} must be as it was written; the file is damaged")
    try:
        files = json.loads(text)["files"]
        intact = _render(files).encode("utf-8") == text
    except (ValueError, KeyError, TypeError):
        raise damaged from None
    if not intact:
        raise damaged
    return dict(files)


def _render(files: dict[str, Any]) -> str:
    seal = hashlib.sha256(json.dumps(files, sort_keys=True).encode("utf-8")).hexdigest()
    return json.dumps({"files": files, "sha256_of_files": seal}, indent=2, sort_keys=True) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
