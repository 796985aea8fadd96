"""Starts a worker process, listens to it, and says which cell it was at if it dies or hangs."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess

from eval.rows.schema import Status
from eval.speed import worker
from eval.speed.failures import from_exit_code, from_silence
from eval.speed.protocol import Finished, Job, Report, Stage

# How often a silent worker is looked at.
_LOOK_SECONDS = 0.2
# Imports may take long on a machine that is busy or has a slow disk.
_START_SECONDS = 120.0
# A process that has said its last word, or was killed, ends within this time.
_END_SECONDS = 10.0


class WorkerDeathError(Exception):
    """A worker ended, or was stopped, over a cell."""

    def __init__(self, index: int, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.index, self.status, self.reason = index, status, reason


class StopRequestedError(Exception):
    """The run is to end; the worker was stopped."""


def reports(job: Job, *, step_seconds: float, should_stop: Callable[[], bool]) -> Iterator[Report]:
    """Does a job in a new process, and yields what it finds.

    Args:
        job: What to do.
        step_seconds: Longest time of one step before the worker counts as hung.
        should_stop: Asked all the time.

    Raises:
        WorkerDeathError: If the process ends before it has finished; names the cell it was at.
        StopRequestedError: If it should stop.
        RuntimeError: If the process ends before it is at any cell: a fault of ours.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    steps = context.RawArray("q", [worker.NO_CELL, Stage.STARTING, 0])
    process = context.Process(target=worker.serve, args=(job, theirs, steps), daemon=True)
    with _signals_held_back():
        process.start()
    theirs.close()
    last, since = 0, time.monotonic()
    try:
        while True:
            if ours.poll(_LOOK_SECONDS):
                try:
                    report = ours.recv()
                except (EOFError, ConnectionResetError):
                    process.join(_END_SECONDS)
                    raise _death(process.exitcode, steps[worker.INDEX], Stage(steps[worker.STAGE])) from None
                if isinstance(report, Finished):
                    process.join(_END_SECONDS)
                    return
                yield report
            if should_stop():
                raise StopRequestedError
            if steps[worker.STEPS] != last:
                last, since = steps[worker.STEPS], time.monotonic()
            elif time.monotonic() - since > (step_seconds if last else _START_SECONDS):
                raise _silence(step_seconds, steps[worker.INDEX], Stage(steps[worker.STAGE]))
    finally:
        ours.close()
        _end(process)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started inside never sees Ctrl-C, which is for us to answer; ours is only delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int | None, index: int, stage: Stage) -> Exception:
    if index == worker.NO_CELL:
        return RuntimeError(f"a worker process ended with exit code {code} before it was at any cell; see stderr")
    assert code is not None, "a process that closed its connection ends"
    return WorkerDeathError(index, *from_exit_code(code, stage))


def _silence(seconds: float, index: int, stage: Stage) -> Exception:
    if index == worker.NO_CELL:
        return RuntimeError(f"a worker process took longer than {_START_SECONDS:g} s to start")
    return WorkerDeathError(index, *from_silence(seconds, stage))


def _end(process: SpawnProcess) -> None:
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
