"""A worker process: does one job, sends reports, and ends when nobody listens any more."""

import gc
import importlib
import sys
from collections.abc import Callable, MutableSequence
from multiprocessing.connection import Connection

import mlx.core as mx

from eval.rows import Memory
from eval.speed.failures import from_exception
from eval.speed.protocol import Announce, Failed, Finished, Job, Measured, MemoryJob, Report, Stage
from eval.speed.session import Session
from eval.speed.subject import Subject
from zoo.runtime.backend import choose_backend

# Where the shared numbers stand: the cell at work, what is done to it, and a count of the steps taken.
INDEX, STAGE, STEPS = range(3)
NO_CELL = -1
# What the listener sends once, when it is this worker's turn.
BEGIN = "begin"
# On a CPU MLX's main thread allocates ahead of the thread that computes and frees, so the peak varies from call to
# call, the more the busier the machine. Its maximum settles: it is taken until so many calls have not raised it.
_PATIENCE, _MAX_CALLS = 4, 16


def serve(job: Job, connection: Connection, steps: MutableSequence[int]) -> None:
    """Does the job; the target of a new process.

    Args:
        job: What to do.
        connection: Takes the reports. Its other end says `BEGIN` and nothing more, so that what there is to read
            after that is its end.
        steps: Three shared numbers, see `INDEX`, `STAGE` and `STEPS`.
    """

    def announce(index: int, stage: Stage) -> None:
        steps[INDEX], steps[STAGE] = index, stage
        steps[STEPS] += 1
        if connection.poll():
            # Whoever asked is gone; going on would only disturb what is measured next.
            sys.exit(1)

    choose_backend(job.options.device)
    importlib.import_module(job.options.builders)
    if not _may_begin(connection):
        return
    if isinstance(job, MemoryJob):
        connection.send(_memory(job, announce))
        connection.send(Finished())
        return
    session = Session(job, report=connection.send, announce=announce)
    # What was imported stays; looking through it again and again would only take time.
    gc.freeze()
    session.run()


def _may_begin(connection: Connection) -> bool:
    """Waits for one's turn; it never comes if whoever asked is gone."""
    try:
        return connection.recv() == BEGIN
    except (EOFError, ConnectionResetError):
        return False


def _memory(job: MemoryJob, announce: Announce) -> Report:
    try:
        announce(0, Stage.BUILDING)
        subject: Subject = importlib.import_module(job.options.builders).BUILDERS[job.cell.builder](job.cell)

        def call() -> object:
            # Each call is a step of its own: many slow ones together are not one that hangs.
            announce(0, Stage.CALLING)
            return subject.call()

        peak = peak_bytes_of_calls(call)
        return Measured(
            memory=Memory(
                peak_bytes=peak,
                cache_bytes=None if subject.cache_bytes is None else subject.cache_bytes(),
                analytic_bytes=subject.analytic_bytes,
                analytic_cache_bytes=subject.analytic_cache_bytes,
            )
        )
    except (RuntimeError, MemoryError, ValueError) as error:
        status, reason = from_exception(error, Stage.CALLING)
        return Failed(index=0, status=status, reason=reason)


def peak_bytes_of_calls(call: Callable[[], object]) -> int:
    """Most bytes that MLX's allocator holds at one time during a call, after a first one that compiles.

    Everything that lives in this process counts: the call's inputs and weights, but also what has nothing to do with
    it, so that a process of its own is the place to ask.

    Args:
        call: Returns arrays, which are evaluated and dropped.
    """
    mx.eval(call())
    peak, unchanged = 0, 0
    for _ in range(_MAX_CALLS):
        # A GPU's cached buffers would be counted again when they are reused for other sizes.
        mx.clear_cache()
        mx.reset_peak_memory()
        mx.eval(call())
        # A call that allocates nothing leaves the peak at zero, whatever its inputs hold.
        now = max(mx.get_peak_memory(), mx.get_active_memory())
        unchanged = unchanged + 1 if now <= peak else 0
        peak = max(peak, now)
        if unchanged == _PATIENCE:
            break
    return peak
