"""The folder of one run: made, proved writable and locked before any work is done.

config.yaml       the resolved configuration
environment.json  device, back end, BLAS, versions, commit
metrics.jsonl     one row per logged step or evaluation
checkpoints/      step_000100/ … and `last`
loss.png, samples.txt, result.json
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from zoo.checkpoints.manifest import sync
from zoo.config import UserError

_LOCK = ".lock"
_CONFIG = "config.yaml"
_RESULT = "result.json"


class RunFolder:
    """A run's folder, held by one process at a time while entered."""

    def __init__(self, path: Path) -> None:
        """Names the folder; nothing is touched until it is entered."""
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        """Makes the folder if need be.

        Raises:
            UserError: If it cannot be written, or another process uses it.
        """
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
        os.close(self._lock)

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / _CONFIG).is_file()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """File of the metrics."""
        return self.path / "metrics.jsonl"

    def write_description(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Writes the resolved configuration and where the run takes place."""
        text = json.dumps(environment, indent=2) + "\n"
        self._replace("environment.json", text)
        self._replace(_CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes the finished run's result."""
        self._replace(_RESULT, json.dumps(result, indent=2) + "\n")

    def result(self) -> dict[str, Any] | None:
        """Result of a finished run, or None."""
        path = self.path / _RESULT
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def _replace(self, name: str, text: str) -> None:
        partial = self.path / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        partial.replace(self.path / name)
