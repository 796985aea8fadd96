"""Where measured values go: always a JSONL file, and TensorBoard or Weights & Biases where they are installed."""

import abc
import contextlib
import importlib.util
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError
from zoo.config.files import open_regular, parse_json, read_text, replace_file
from zoo.training.config import LoggerName

_log = logging.getLogger(__name__)

# Losses are float32, and figures cannot be drawn of much more.
_LARGEST = 2**128

Values = Mapping[str, float | int | None]


class MetricLogger(abc.ABC):
    """Receives the values of a step."""

    @abc.abstractmethod
    def log(self, step: int, values: Values) -> None:
        """Records values; None marks one that does not apply."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Forces what was recorded to the disk, as far as this logger can."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the record."""


class JsonLinesLogger(MetricLogger):
    """One JSON object a row: `step` and the values."""

    def __init__(self, path: Path, *, resumed_step: int) -> None:
        """Opens the file and drops what a killed run wrote after the step it goes on from.

        Args:
            path: The file; may not exist yet.
            resumed_step: 0 for a new run.

        Raises:
            UserError: If the file cannot be read or written.
        """
        self._path = path
        kept = [row for row in read_metrics(path) if row["step"] <= resumed_step] if resumed_step else []
        with self._writing():
            replace_file(path, "".join(f"{json.dumps(row)}\n" for row in kept))
            # Unbuffered: of a row that found no room nothing is left to be written at the end.
            self._file = path.open("ab", buffering=0)

    def log(self, step: int, values: Values) -> None:
        row = (json.dumps({"step": step, **values}) + "\n").encode("utf-8")
        with self._writing():
            while row:
                row = row[self._file.write(row) :]

    def flush(self) -> None:
        with self._writing():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path} must be writable; got {error.strerror or error}") from error


class TensorBoardLogger(MetricLogger):
    """Scalars for TensorBoard, through its own event writer."""

    def __init__(self, folder: Path, *, resumed_step: int) -> None:
        """Begins an event file; steps after `resumed_step` in older files are hidden by TensorBoard."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(resumed_step + 1, session_log=start)

    def log(self, step: int, values: Values) -> None:
        scalars = [
            self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None
        ]
        self._add(step, summary=self._summary(value=scalars))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, *, summary: Any = None, session_log: Any = None) -> None:
        event = self._event(wall_time=time.time(), step=step, summary=summary, session_log=session_log)
        self._writer.add_event(event)


class WandbLogger(MetricLogger):
    """A Weights & Biases run, whose id the run's folder keeps: a resumed run goes on in the same one."""

    def __init__(self, folder: Path, *, config: Mapping[str, Any]) -> None:
        """Begins or continues the run."""
        import wandb

        identity = folder / "wandb_id"
        # A power cut can leave it empty.
        if not identity.is_file() or not identity.stat().st_size:
            replace_file(identity, uuid.uuid4().hex)
        self._run = wandb.init(
            project="attention-zoo",
            dir=str(folder),
            id=read_text(identity, what="run"),
            name=folder.name,
            config=dict(config),
            resume="allow",
        )

    def log(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Does nothing: wandb has a process of its own that writes and sends."""

    def close(self) -> None:
        self._run.finish()


def open_loggers(
    names: tuple[LoggerName, ...], folder: Path, *, resumed_step: int, config: Mapping[str, Any]
) -> list[MetricLogger]:
    """Opens the loggers of a run, `metrics.jsonl` first.

    Args:
        names: Loggers besides it.
        folder: The run's folder.
        resumed_step: 0 for a new run.
        config: The run's configuration.

    Raises:
        UserError: If one is not installed; names the command that installs it.
    """
    require_installed(names)
    extras: list[MetricLogger] = []
    for name in names:
        match name:
            case "tensorboard":
                extras.append(TensorBoardLogger(folder / "tensorboard", resumed_step=resumed_step))
            case "wandb":
                extras.append(WandbLogger(folder, config=config))
    return [JsonLinesLogger(folder / "metrics.jsonl", resumed_step=resumed_step), *extras]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`, in order; a last line that a kill left unfinished is not a row.

    Lines that a power cut spoilt are passed over: the values of a few steps are no reason to give up a run.

    Raises:
        UserError: If there is something that cannot be read.
    """
    if not path.exists():
        return []
    rows, num_spoilt = [], 0
    with open_regular(path, what="run") as stream:
        for line in stream:
            row = _row(line)
            if row is not None:
                rows.append(row)
            elif line.endswith(b"\n"):
                num_spoilt += 1
    if num_spoilt:
        message = "run: %d %s of %s must each be one row of values; passed over"
        _log.warning(message, num_spoilt, "line" if num_spoilt == 1 else "lines", path)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds: a step, and numbers that a training can come to or None; None if it is no row."""
    try:
        row = parse_json(line.decode("utf-8"), where="")
    except (UserError, UnicodeDecodeError):
        return None
    if not line.endswith(b"\n") or not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    numbers = [value for value in row.values() if value is not None]
    fits = row["step"] >= 0 and all(type(each) in (int, float) and abs(each) <= _LARGEST for each in numbers)
    return row if fits else None


def require_installed(names: tuple[LoggerName, ...]) -> None:
    """Refuses loggers whose packages are missing.

    Raises:
        UserError: Names the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"training.loggers: {name} must be installed to log to it; run: pip install -e '.[{name}]'")
