"""Runs the project's scripts as processes of their own: their logs go to files, their JSON comes back."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from recipes.app import END_WITH_PARENT
from recipes.command_line import in_quotes
from zoo.config import UserError
from zoo.runtime.pool import THREAD_VARIABLES
from zoo.training.signals import handled

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
# How long an interrupted script may take to save what it has.
_GRACE_SECONDS = 120.0
# The command contract's exit code for what the user can mend.
_REFUSED = 2


class RefusedError(UserError):
    """A script refused what it was asked for: something that the user can mend, and no fault of ours.

    Attributes:
        reason: What it said.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DiedError(UserError):
    """A script ended without a result and without a word of refusal: killed, or by a fault."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """A command to run once.

    Attributes:
        name: For messages.
        script: File name in `scripts/`.
        arguments: Its overrides.
        log: Where its stderr goes.
        shown: Whether people see that stderr as well, as it comes.
    """

    name: str
    script: str
    arguments: tuple[str, ...]
    log: Path
    shown: bool = False


class ScriptRunner:
    """Runs scripts, several at a time if asked from several threads; leaves none behind."""

    def __init__(self, *, threads_each: int | None) -> None:
        """Takes the number of BLAS threads that each script may use; None leaves the choice to it."""
        self._threads_each = threads_each
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._stopped = False

    def run(self, script: Script) -> dict[str, Any]:
        """Runs a script to its end.

        Returns:
            The JSON object that it printed last.

        Raises:
            RefusedError: If it refused what it was asked for.
            DiedError: If it ended otherwise without a result; both carry the last line of its log.
            UserError: If its log cannot be written, or scripts were stopped.
        """
        try:
            script.log.parent.mkdir(parents=True, exist_ok=True)
            log = script.log.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{script.log} must be writable; got {error.strerror}") from None
        with log, _told(log, script.shown) as stderr:
            with self._lock:
                if self._stopped:
                    raise UserError(f"{script.name} was not started: interrupted")
                process = subprocess.Popen(
                    [sys.executable, str(SCRIPTS / script.script), *script.arguments],
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    env=self._environment(),
                    # Of its own, so that Ctrl-C reaches it through us alone, once.
                    start_new_session=True,
                )
                self._running.add(process)
            output, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
        lines = output.splitlines()
        if process.returncode != 0 or not lines:
            reason = _last_line(script.log)
            message = f"{script.name} failed ({_ending(process.returncode)}): {reason}"
            if self._stopped:
                raise UserError(message)
            raise RefusedError(message, reason=reason) if process.returncode == _REFUSED else DiedError(message)
        return json.loads(lines[-1])

    def stop(self) -> None:
        """Interrupts what is running, so that it saves its state, and starts nothing more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _environment(self) -> Mapping[str, str]:
        chosen = any(name in os.environ for name in THREAD_VARIABLES)
        threads = {} if self._threads_each is None or chosen else {THREAD_VARIABLES[0]: str(self._threads_each)}
        return {**os.environ, **threads, END_WITH_PARENT: str(os.getpid())}


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as Linux does when memory runs out"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def _told(log: io.RawIOBase, shown: bool) -> Iterator[int]:
    """The descriptor for a script's stderr: the log, or a pipe whose content goes there and to people."""
    if not shown:
        yield log.fileno()
        return
    reading, writing = os.pipe()
    teller = Thread(target=_tell, args=(reading, log), daemon=True)
    teller.start()
    try:
        yield writing
    finally:
        os.close(writing)
        # A worker that outlives its script may hold the pipe.
        teller.join(timeout=5)


def _tell(reading: int, log: io.RawIOBase) -> None:
    while content := os.read(reading, 4096):
        log.write(content)
        # Whether anybody still looks must not matter.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(content.decode(errors="replace"))
            sys.stderr.flush()
    os.close(reading)


@contextlib.contextmanager
def stopping_at_the_end(runner: ScriptRunner) -> Iterator[None]:
    """Stops the runner's scripts when the block is left early, by a signal to end the process too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with handled(interrupt, signal.SIGTERM):
        try:
            yield
        except BaseException:
            runner.stop()
            raise


def listed(values: Sequence[object]) -> str:
    """A list as an override takes it; in quotes, for texts may hold commas."""
    return "[" + ",".join(in_quotes(str(value)) for value in values) + "]"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
