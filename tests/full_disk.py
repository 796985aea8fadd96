"""A disk that is full from the n-th change on: each opening for writing, write, sync, rename and new folder counts."""

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class FullDisk:
    """Fails one change below a folder, and all that follow it until it is left."""

    def __init__(self, folder: Path, *, fails_from: int | None) -> None:
        """Takes the folder and the number of the first change that fails, from 1 on; None for none."""
        self.folder, self.fails_from = folder, fails_from
        self.changes: list[str] = []

    def change(self, what: str, path: Any) -> None:
        """Counts a change."""
        if isinstance(path, int) or not Path(os.fsdecode(path)).is_relative_to(self.folder):
            return
        self.changes.append(f"{what} {Path(os.fsdecode(path)).relative_to(self.folder)}")
        if self.fails_from is not None and len(self.changes) >= self.fails_from:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    @contextlib.contextmanager
    def entered(self) -> Iterator["FullDisk"]:
        """Takes the place of Python's doors to the disk."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (builtins, io):
                patch.setattr(module, "open", self._opener(io.open))
            for name in ("mkdir", "rename", "replace", "symlink", "link"):
                patch.setattr(os, name, self._counted(name, getattr(os, name)))
            patch.setattr(os, "fsync", self._counted_sync(os.fsync))
            yield self

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *arguments: Any, **options: Any) -> Any:
            if not (name == "mkdir" and os.path.isdir(path)):  # noqa: PTH112
                self.change(name, path)
            return original(path, *arguments, **options)

        return counted

    def _counted_sync(self, original: Callable[[int], None]) -> Callable[[int], None]:
        def counted(descriptor: int) -> None:
            self.change("fsync", os.readlink(f"/dev/fd/{descriptor}"))  # noqa: PTH115
            original(descriptor)

        return counted

    def _opener(self, original: Callable[..., Any]) -> Callable[..., Any]:
        disk = self

        class Counted(io.FileIO):
            def write(self, data: Any) -> int:
                disk.change("write", self.name)
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
            inside = not isinstance(file, int) and Path(os.fsdecode(file)).is_relative_to(disk.folder)
            if not inside or not set(mode) & set("wax+"):
                return original(file, mode, buffering, *arguments, **options)
            disk.change("open", file)
            raw = Counted(os.fsdecode(file), mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, options.get("encoding") or "utf-8")

        return opened
