"""Starts a worker process, listens to it, and says which cell it was at if it dies or hangs."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator

from eval.bench import worker
from eval.bench.job import Job, Report, Stage, from_exit_code, from_silence
from eval.rows.schema import Status
from zoo.runtime.memory import oom_kills

# How often a silent worker is looked at.
_LOOK_SECONDS = 0.2
# Imports may take long on a machine that is busy or has a slow disk.
_START_SECONDS = 600.0
# A process that has said its last word, or was killed, ends within this time.
_END_SECONDS = 10.0


class WorkerDeathError(Exception):
    """A worker ended, or was stopped, over a cell."""

    def __init__(self, index: int, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.index, self.status, self.reason = index, status, reason


class WorkerStartError(RuntimeError):
    """A worker ended, or hung, before it was at any cell: a fault of ours, or of the machine."""


class StopRequestedError(Exception):
    """The run is to end; the worker was stopped."""


class Worker:
    """A process for one job: starts at once, most of which is imports, and begins when its reports are asked for."""

    def __init__(self, job: Job) -> None:
        self._kills_before = oom_kills()
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._steps = context.RawArray("q", [worker.NO_CELL, Stage.STARTING, 0])
        self._process = context.Process(target=worker.serve, args=(job, theirs, self._steps), daemon=True)
        with _signals_held_back():
            self._process.start()
        theirs.close()

    def reports(self, *, step_seconds: float, should_stop: Callable[[], bool]) -> Iterator[Report]:
        """Lets the process do its job, and yields what it finds.

        Args:
            step_seconds: Longest time of one step before the worker counts as hung.
            should_stop: Asked all the time.

        Raises:
            WorkerDeathError: If the process ends before it has finished; names the cell it was at.
            StopRequestedError: If it should stop.
            WorkerStartError: If the process ends before it is at any cell.
        """
        try:
            # If it is dead already, the next lines find out how it died.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._ours.send(worker.BEGIN)
            yield from self._listen(step_seconds, should_stop)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the process, whatever it does; a second time does nothing."""
        if self._ours.closed:
            return
        self._ours.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()

    def _listen(self, step_seconds: float, should_stop: Callable[[], bool]) -> Iterator[Report]:
        last, since = 0, time.monotonic()
        while True:
            if self._ours.poll(_LOOK_SECONDS):
                try:
                    report = self._ours.recv()
                except (EOFError, ConnectionResetError):
                    self._process.join(_END_SECONDS)
                    raise self._death() from None
                if report is None:
                    self._process.join(_END_SECONDS)
                    return
                yield report
            if should_stop():
                raise StopRequestedError
            steps = self._steps[worker.STEPS]
            if steps != last:
                last, since = steps, time.monotonic()
            elif time.monotonic() - since > (step_seconds if last else _START_SECONDS):
                raise self._silence(step_seconds)

    def _death(self) -> Exception:
        code = self._process.exitcode
        if self._steps[worker.INDEX] == worker.NO_CELL:
            return WorkerStartError(
                f"a worker process ended with exit code {code} before it was at any cell; see stderr"
            )
        assert code is not None, "a process that closed its connection ends"
        killed = oom_kills() > self._kills_before
        return self._at_work(*from_exit_code(code, self._stage, killed_for_memory=killed))

    def _silence(self, seconds: float) -> Exception:
        if self._steps[worker.INDEX] == worker.NO_CELL:
            return WorkerStartError(f"a worker process took longer than {_START_SECONDS:g} s to start")
        return self._at_work(*from_silence(seconds, self._stage))

    def _at_work(self, status: Status, reason: str) -> WorkerDeathError:
        return WorkerDeathError(self._steps[worker.INDEX], status, reason)

    @property
    def _stage(self) -> Stage:
        return Stage(self._steps[worker.STAGE])


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started inside never sees Ctrl-C, which is for us to answer; ours is only delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
