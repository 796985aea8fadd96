"""Inside a worker process: it does one job, sends reports, and ends when nobody listens any more.

A timing job checks every cell, then builds it anew, warms it up, and times it against the others in rounds: every cell
once in each, in an order of the round's own. What slows the machine for a while slows all cells of a round, and cancels
in their ratios. What favours one cell for good, such as where its arrays happen to lie in memory, does not: so after
each block of rounds everything is built anew, in another order and elsewhere in memory, which makes that luck part of
the noise that intervals speak of.
"""

import dataclasses
import functools
import gc
import logging
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterable, MutableSequence
from multiprocessing.connection import Connection
from typing import TypeVar

import mlx.core as mx

from eval.bench import Source, Workload, source
from eval.bench.clock import Clock, Pace, Warmth, calls_per_sample, sample, timed, warm_up
from eval.bench.job import Announce, Failed, Job, MemoryJob, Report, Stage, Timed, TimingJob, from_exception
from eval.rows import Correctness, Memory
from zoo.runtime.backend import choose_backend

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

# Where the shared numbers stand: the cell at work, what is done to it, and a count of the steps taken.
INDEX, STAGE, STEPS = range(3)
NO_CELL = -1
# What the listener sends once, when it is this worker's turn.
BEGIN = "begin"
# Rounds between two builds.
BLOCK = 5
# Calls of a workload that was built anew in a process that is warm already.
_SETTLING_CALLS = 2
# What ran before has filled the caches with its own. That costs a short call much, and one of several calls of a sample
# less than a single one; so ahead of samples of short calls there is one that is not timed.
_SHORT_SECONDS = 0.01
# Larger than a page, smaller than what matters: moves the arrays that are built next.
_MAX_PADDING_BYTES = 2**18
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
    workloads = source(job.options.workloads)
    try:
        connection.recv()
    # Whoever asked is gone before it was this worker's turn.
    except (EOFError, ConnectionResetError):
        return
    if isinstance(job, MemoryJob):
        connection.send(_memory(job, workloads, announce))
    else:
        session = Session(job, workloads, report=connection.send, announce=announce)
        # What was imported stays; looking through it again and again would only take time.
        gc.freeze()
        session.run()
    connection.send(None)


@dataclasses.dataclass(kw_only=True)
class _Entry:
    """A cell in the race."""

    workload: Workload
    first_call_seconds: float
    warmth: Warmth
    calls: int
    build_seconds: float
    samples: list[float] = dataclasses.field(default_factory=list)


class Session:
    """Does a timing job."""

    def __init__(
        self,
        job: TimingJob,
        workloads: Source,
        *,
        report: Callable[[Report], None],
        announce: Announce,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Begins.

        Args:
            job: What to do.
            workloads: Builds the cells.
            report: Takes what was found.
            announce: Told of each step before it is taken.
            clock: For tests.
        """
        self._job, self._workloads, self._report, self._tell, self._clock = job, workloads, report, announce, clock
        self._started = clock()
        self._random = random.Random(f"{job.options.seed} {job.label}")
        self._passed: dict[int, Correctness] = {}
        self._entries: dict[int, _Entry] = {}
        self._padding: list[mx.array] = []

    def run(self) -> None:
        """Reports each cell as failed or timed."""
        self._check_all()
        for index in self._shuffled(self._passed):
            self._guard(index, self._enter)
        gc.collect()
        gc.disable()
        try:
            self._take_rounds()
        finally:
            gc.enable()
        rounds_id = uuid.uuid4().hex
        for index in self._entries:
            self._report(self._timed(index, rounds_id))

    def _check_all(self) -> None:
        """Checks each cell, equal ones once; none of the arrays live on."""
        found: dict[str, Correctness | Failed] = {}
        for index, cell in enumerate(self._job.cells):
            if cell.identity not in found:
                found[cell.identity] = self._check(index)
            result = found[cell.identity]
            if isinstance(result, Failed):
                self._report(dataclasses.replace(result, index=index))
            else:
                self._passed[index] = result
        gc.collect()
        mx.clear_cache()

    def _check(self, index: int) -> Correctness | Failed:
        workload = self._attempt(index, lambda: self._build(index))
        if isinstance(workload, Failed):
            return workload
        self._announce(index, Stage.CHECKING)
        correctness = self._attempt(index, workload.check)
        if isinstance(correctness, Correctness) and not correctness.passed:
            return Failed(index=index, status="incorrect", reason=correctness.checks, correctness=correctness)
        return correctness

    def _take_rounds(self) -> None:
        pace = Pace(rounds=self._job.rounds, seconds=self._job.seconds, started=self._started, clock=self._clock)
        done = 0
        while self._entries and pace.allows(done):
            if done and done % BLOCK == 0:
                self._build_anew()
            for index in self._shuffled(self._entries):
                self._guard(index, self._sample)
            done += 1

    def _enter(self, index: int) -> None:
        options = self._job.options
        begun = self._clock()
        workload = self._build_padded(index)
        self._announce(index, Stage.CALLING)
        first = timed(workload.call, self._clock)
        built = self._clock()
        before = functools.partial(self._announce, index, Stage.CALLING)
        warmth = warm_up(workload.call, options, before=before, clock=self._clock)
        self._entries[index] = _Entry(
            workload=workload,
            first_call_seconds=first,
            warmth=warmth,
            calls=calls_per_sample(warmth, self._job.cells[index].execution, options.sample_seconds),
            build_seconds=built - begun + _SETTLING_CALLS * warmth.seconds,
        )

    def _sample(self, index: int) -> None:
        entry = self._entries[index]
        self._announce(index, Stage.CALLING)
        if entry.warmth.seconds < _SHORT_SECONDS:
            mx.eval(entry.workload.call())
        execution = self._job.cells[index].execution
        entry.samples.append(sample(entry.workload.call, execution, entry.calls, self._clock))

    def _build_anew(self) -> None:
        """Unless building would take longer than the rounds that follow."""
        building = sum(entry.build_seconds for entry in self._entries.values())
        timing = sum(entry.calls * entry.warmth.seconds for entry in self._entries.values())
        if building > BLOCK * timing:
            return
        self._padding.clear()
        for index in self._shuffled(self._entries):
            self._guard(index, self._replace)
        gc.collect()

    def _replace(self, index: int) -> None:
        entry = self._entries[index]
        # The old one goes last, so that the new one cannot take its place in memory.
        entry.workload = self._build_padded(index)
        self._announce(index, Stage.CALLING)
        for _ in range(_SETTLING_CALLS):
            mx.eval(entry.workload.call())

    def _build_padded(self, index: int) -> Workload:
        padding = mx.zeros(self._random.randrange(1, _MAX_PADDING_BYTES), dtype=mx.uint8)
        mx.eval(padding)
        self._padding.append(padding)
        return self._build(index)

    def _build(self, index: int) -> Workload:
        self._announce(index, Stage.BUILDING)
        return self._workloads.build(self._job.cells[index])

    def _shuffled(self, indices: Iterable[int]) -> list[int]:
        order = list(indices)
        self._random.shuffle(order)
        return order

    def _announce(self, index: int, stage: Stage) -> None:
        self._stage = stage
        self._tell(index, stage)

    def _guard(self, index: int, action: Callable[[int], None]) -> None:
        """Does something with a cell, which is out if that fails."""
        failure = self._attempt(index, lambda: action(index))
        if isinstance(failure, Failed):
            self._entries.pop(index, None)
            self._report(dataclasses.replace(failure, correctness=self._passed[index]))

    def _attempt(self, index: int, action: Callable[[], Value]) -> Value | Failed:
        """Whatever a cell raises becomes its row, and the others go on."""
        try:
            return action()
        # A mechanism of any package may be measured: nobody can name what it raises.
        except Exception as error:
            status, reason = from_exception(error, self._stage)
            if status == "crashed":
                logger.exception("%s crashed", self._job.cells[index].variant)
            return Failed(index=index, status=status, reason=reason)

    def _timed(self, index: int, rounds_id: str) -> Timed:
        entry = self._entries[index]
        return Timed(
            index=index,
            correctness=self._passed[index],
            function=entry.workload.function,
            work=entry.workload.work,
            memory=_known_memory(entry.workload),
            first_call_seconds=entry.first_call_seconds,
            warmup_calls=entry.warmth.calls,
            calls_per_sample=entry.calls,
            samples_seconds=tuple(entry.samples),
            rounds_id=rounds_id,
        )


def _known_memory(workload: Workload) -> Memory:
    return Memory(
        peak_bytes=None,
        analytic_bytes=workload.analytic_bytes,
        analytic_cache_bytes=workload.analytic_cache_bytes,
    )


def _memory(job: MemoryJob, workloads: Source, announce: Announce) -> Report:
    try:
        announce(0, Stage.BUILDING)
        workload = workloads.build(job.cell)

        def call() -> object:
            # Each call is a step of its own: many slow ones together are not one that hangs.
            announce(0, Stage.CALLING)
            return workload.call()

        measured = {"peak_bytes": peak_bytes_of_calls(call)}
        if workload.cache_bytes is not None:
            measured["cache_bytes"] = workload.cache_bytes()
        return _known_memory(workload).model_copy(update=measured)
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
