"""The folder of one run: made, proved writable and locked before any work is done.

config.yaml       the resolved configuration
command.json      the overrides and the chosen YAMLs that it comes from
environment.json  device, back end, BLAS, versions, commit
metrics.jsonl     one row per logged step or evaluation
checkpoints/      step_000100/ …
loss.png, samples.txt, result.json
surgery.json      what exchanging the attention of a checkpoint did
"""

import contextlib
import datetime
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from zoo.checkpoints.history import History
from zoo.checkpoints.opening import section
from zoo.checkpoints.save import CONFIG
from zoo.config import UserError
from zoo.config.files import read_json_mapping, replace_file
from zoo.runtime.watch import BEATS

_LOCK = ".lock"
_CONFIG = "config.yaml"
_RESULT = "result.json"
_SURGERY = "surgery.json"


class RunFolder:
    """A run's folder, held by one process at a time while entered."""

    def __init__(self, path: Path) -> None:
        """Names the folder; nothing is touched until it is entered."""
        self.path = path
        self._lock = -1
        self._made: list[Path] = []

    @classmethod
    def claimed(cls, parent: Path, name: str) -> Self:
        """A new folder of this name, with a number after it where the name is taken; nobody else gets the same one.

        Raises:
            UserError: If it cannot be made.
        """
        made = [each for each in (parent, *parent.parents) if not each.exists()]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = cls(_made_first(parent, name))
        except OSError as error:
            raise UserError(f"run_dir must be a writable folder; got {str(parent)!r} ({error.strerror})") from None
        folder._made = [folder.path, *made]
        return folder

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> Self | None:
        """The folder of the run that keeps a checkpoint, or None if the checkpoint stands by itself."""
        run = cls(checkpoint.resolve().parent.parent)
        return run if run.checkpoints == checkpoint.resolve().parent and run.holds_run else None

    def __enter__(self) -> Self:
        """Makes the folder if need be.

        Raises:
            UserError: If it cannot be written, or another process uses it.
        """
        self._made += [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"run_dir must be a writable folder; got {str(self.path)!r} ({error.strerror})") from None
        try:
            # The system drops the lock with the process, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"run_dir must not be in use by another process; got {str(self.path)!r}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the folder, and takes it away again if it was made for a run that could not begin."""
        if error is not None:
            self.take_away()
        os.close(self._lock)

    def take_away(self) -> None:
        """Removes the folder if it was made here and nothing came of it."""
        if self._made and {path.name for path in self.path.iterdir()} <= {_LOCK, BEATS}:
            shutil.rmtree(self.path / BEATS, ignore_errors=True)
            (self.path / _LOCK).unlink()
            for folder in self._made:
                # Others may have put something beside it by now.
                with contextlib.suppress(OSError):
                    folder.rmdir()

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / _CONFIG).is_file() or History(self.checkpoints).newest() is not None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """File of the metrics."""
        return self.path / "metrics.jsonl"

    def saved_config(self) -> Mapping[str, Any]:
        """What the newest checkpoint says of the training; empty if there is none."""
        newest = History(self.checkpoints).newest()
        return {} if newest is None else section(read_json_mapping(newest / CONFIG, what="checkpoint"), "run")

    def write_description(
        self, config: Mapping[str, Any], command: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> None:
        """Writes the resolved configuration, what it comes from, and where the run takes place."""
        self._replace("environment.json", json.dumps(environment, indent=2) + "\n")
        self._replace("command.json", json.dumps(command, indent=2) + "\n")
        self._replace(_CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes the finished run's result."""
        self._replace(_RESULT, json.dumps(result, indent=2) + "\n")

    def result(self) -> dict[str, Any] | None:
        """Result of a finished run; None if there is none that can be read."""
        try:
            return read_json_mapping(self.path / _RESULT, what="run")
        except UserError:
            return None

    def write_surgery(self, report: Mapping[str, Any]) -> None:
        """Writes what exchanging the attention did."""
        self._replace(_SURGERY, json.dumps(report, indent=2) + "\n")

    def surgery(self) -> dict[str, Any] | None:
        """What exchanging the attention did; None if it was not looked at yet."""
        path = self.path / _SURGERY
        return read_json_mapping(path, what="run") if path.exists() else None

    def finished_at(self) -> datetime.datetime:
        """When the result was written; only of a run that has one."""
        return datetime.datetime.fromtimestamp((self.path / _RESULT).stat().st_mtime, datetime.UTC)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Names a file of the folder while it is written.

        Raises:
            UserError: If it cannot be: the disk is full, or something is in the way.
        """
        path = self.path / name
        try:
            yield path
        except OSError as error:
            raise UserError(f"{path} must be writable; got {error.strerror or error}") from None

    def _replace(self, name: str, text: str) -> None:
        with self.writing(name) as path:
            replace_file(path, text)


def _made_first(parent: Path, name: str) -> Path:
    """The first folder of this name and numbers that could be made: making it is what claims it."""
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            # A run that could not begin may take the parent away just now.
            path.mkdir(parents=True)
            return path
    raise AssertionError("numbers do not end")
