"""A worker process, from both sides: what it says while it works, and which cell it was at if it dies or hangs.

A worker has one task. It announces each step in shared memory, which costs no system call and wakes nobody up on a
machine with few cores. What it found out about a cell it sends, with the cell's index, and None at the end.
"""

import contextlib
import ctypes
import dataclasses
import enum
import gc
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from multiprocessing.connection import Connection

from eval.bench import MeasureOptions, Source, source
from eval.rows import Cell, Correctness, Memory, Samples, Work
from eval.rows.schema import Status
from zoo.config import UserError
from zoo.runtime.backend import choose_backend
from zoo.runtime.memory import address_space_is_limited, is_exhaustion, oom_kills

# How often a silent worker is looked at.
_LOOK_SECONDS = 0.2
# Imports may take long on a machine that is busy or has a slow disk.
_START_SECONDS = 600.0
# A process that has said its last word, or was killed, ends within this time.
_END_SECONDS = 10.0
# Of an exception's message, the most that a row repeats.
_LONGEST = 300
# How a process ends whose allocator got nothing from the system and went on.
_WITHOUT_MEMORY = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)


class Stage(enum.IntEnum):
    """What is done to a cell."""

    BUILT = 1
    CHECKED = 2
    CALLED = 3

    def __str__(self) -> str:
        return f"while it was {self.name.lower()}"


class Step(ctypes.Structure):
    """What a worker is at, in memory that both processes see: the cell, its stage, and how many steps were taken."""

    _fields_ = (("index", ctypes.c_int64), ("stage", ctypes.c_int64), ("count", ctypes.c_int64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found out about a cell, or why nothing was: parts of its row, and the workload's function.

    Memory is measured only in a process of its own, otherwise by formula; work is without the device's limits. What
    ended its process is the last outcome that there is of it.
    """

    status: Status = "ok"
    reason: str | None = None
    correctness: Correctness | None = None
    samples: Samples | None = None
    memory: Memory | None = None
    work: Work | None = None
    function: Hashable = None
    ended_process: bool = False


# Takes the outcome of the cell with this index.
Report = Callable[[int, Outcome], None]
# Told that a stage of the cell with this index begins.
Announce = Callable[[int, Stage], None]
# What a worker process does to cells, as options say, with their source; it reports and announces as it goes.
Task = Callable[[Sequence[Cell], MeasureOptions, Source, Report, Announce], None]


class WorkerStartError(RuntimeError):
    """A worker ended, or hung, before it was at any cell: a fault of ours, or of the machine."""


class StopRequestedError(Exception):
    """The run is to end; the worker was stopped."""


class Worker:
    """A process for one task: starts at once, most of which is imports, and begins when its reports are asked for."""

    def __init__(self, task: Task, cells: Sequence[Cell], options: MeasureOptions) -> None:
        self._kills_before, self._step_seconds = oom_kills(), options.step_seconds
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._step = context.RawValue(Step)
        self._process = context.Process(target=serve, args=(task, cells, options, theirs, self._step), daemon=True)
        with _signals_held_back():
            self._process.start()
        theirs.close()

    def reports(self, should_stop: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        """Lets the process do its task, and yields what becomes of each cell, with the cell's index.

        Raises:
            WorkerStartError: If the process ends or hangs before it is at any cell.
            StopRequestedError: If it should stop, which is asked all the time.
        """
        try:
            # If it is dead already, the next lines find out how it died.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._ours.send("begin")
            last, since = 0, time.monotonic()
            while True:
                if self._ours.poll(_LOOK_SECONDS):
                    try:
                        report = self._ours.recv()
                    except (EOFError, ConnectionResetError):
                        self._process.join(_END_SECONDS)
                        code = self._process.exitcode
                        assert code is not None, "a process that closed its connection ends"
                        yield self._lost(code)
                        return
                    if report is None:
                        self._process.join(_END_SECONDS)
                        return
                    yield report
                if should_stop():
                    raise StopRequestedError
                if self._step.count != last:
                    last, since = self._step.count, time.monotonic()
                elif time.monotonic() - since > (self._step_seconds if last else _START_SECONDS):
                    yield self._lost(None)
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Ends the process, whatever it does; a second time does nothing."""
        if self._ours.closed:
            return
        self._ours.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()

    def _lost(self, code: int | None) -> tuple[int, Outcome]:
        """What became of the cell over which the process ended with this exit code, or hung (None)."""
        if not self._step.count:
            ended = f"ended with exit code {code} before it was at any cell; see stderr"
            how = f"took longer than {_START_SECONDS:g} s to start" if code is None else ended
            raise WorkerStartError(f"a worker process {how}")
        stage = Stage(self._step.stage)
        if code is None:
            reason = f"took longer than {self._step_seconds:g} s over one step {stage}, and was stopped"
            outcome = Outcome(status="crashed", reason=reason)
        else:
            outcome = from_exit_code(code, stage, killed_for_memory=oom_kills() > self._kills_before)
        return self._step.index, dataclasses.replace(outcome, ended_process=True)


def serve(task: Task, cells: Sequence[Cell], options: MeasureOptions, connection: Connection, step: Step) -> None:
    """Does the task; the target of a new process, which ends when nobody listens any more."""

    def announce(index: int, stage: Stage) -> None:
        step.index, step.stage = index, stage
        step.count += 1
        # After its first word the other end has nothing to say, so what there is to read is its end. Whoever asked is
        # gone then; going on would only disturb what is measured next.
        if connection.poll():
            sys.exit(1)

    def report(index: int, outcome: Outcome) -> None:
        connection.send((index, outcome))

    choose_backend(options.device)
    workloads = source(options.workloads)
    try:
        # Waits for this worker's turn; whoever asked may be gone before.
        connection.recv()
    except (EOFError, ConnectionResetError):
        return
    # What was imported stays; looking through it again and again would only take time.
    gc.freeze()
    task(cells, options, workloads, report, announce)
    connection.send(None)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started inside never sees Ctrl-C, which is for us to answer; ours is only delayed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def from_exception(error: Exception, stage: Stage) -> Outcome:
    """Outcome of a cell that raised.

    What refuses its own configuration is unavailable; any other exception is a fault, which may be mended.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1][:_LONGEST] if lines else ""
    if is_exhaustion(error):
        return Outcome(status="out_of_memory", reason=f"{text or 'no memory was left'} ({stage})")
    if isinstance(error, UserError):
        return Outcome(status="unavailable", reason=text)
    return Outcome(status="crashed", reason=f"{type(error).__name__}: {text} ({stage})")


def from_exit_code(code: int, stage: Stage, *, killed_for_memory: bool = False) -> Outcome:
    """Outcome of the cell at work, at this stage, when its process died.

    The code is minus the signal's number where a signal ended the process; `killed_for_memory`: the kernel has counted
    a process killed for want of memory meanwhile.
    """
    if code >= 0:
        return Outcome(status="crashed", reason=f"ended its process with exit code {code} {stage}")
    name = signal.Signals(-code).name
    if killed_for_memory:
        reason = f"killed {stage} by the kernel, which counts it as out of memory"
    elif code in _WITHOUT_MEMORY and address_space_is_limited():
        reason = f"ended by {name} {stage} under a limit of memory (ulimit), as MLX does there"
    elif code == -signal.SIGKILL:
        reason = f"killed by SIGKILL {stage}, as Linux does when memory runs out"
    else:
        return Outcome(status="crashed", reason=f"ended by {name} {stage}")
    return Outcome(status="out_of_memory", reason=reason)
