"""What a worker process does: it times cells against each other, or measures the memory of one.

To time cells, it checks each, then builds it anew, warms it up, and times it against the others in rounds: every cell
once in each, in an order of the round's own. What slows the machine for a while slows all cells of a round, and cancels
in their ratios. What favours one cell for good, such as where its arrays happen to lie in memory, does not: so after
each block of rounds everything is built anew, in another order and elsewhere in memory, which makes that luck part of
the noise that intervals speak of.
"""

import contextlib
import dataclasses
import functools
import gc
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

import mlx.core as mx

from eval.bench import MeasureOptions, Source, Workload
from eval.bench.clock import Clock, calls_per_sample, rounds_in_time, sample, timed, warm_up
from eval.bench.process import Announce, Outcome, Report, Stage, from_exception
from eval.query import grouped
from eval.rows import Cell, Correctness, Memory, Samples

logger = logging.getLogger(__name__)

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


def time_cells(
    cells: Sequence[Cell],
    options: MeasureOptions,
    workloads: Source,
    report: Report,
    announce: Announce,
    clock: Clock = time.perf_counter,
) -> None:
    """Checks cells, equal ones once, then times them against each other; reports each as failed or timed."""
    _Session(cells, options, workloads, report, announce, clock).run()


def measure_memory(
    cells: Sequence[Cell], options: MeasureOptions, workloads: Source, report: Report, announce: Announce
) -> None:
    """Reports what one cell takes, or why it was not measured, in a process where nothing else was."""
    (cell,) = cells

    def call() -> object:
        # Each call is a step of its own: many slow ones together are not one that hangs.
        announce(0, Stage.CALLED)
        return workload.call()

    try:
        announce(0, Stage.BUILT)
        workload = workloads.build(cell)
        peak = peak_bytes_of_calls(call)
        cache = None if workload.cache_bytes is None else workload.cache_bytes()
        memory = _memory(workload).model_copy(update={"peak_bytes": peak, "cache_bytes": cache})
        report(0, Outcome(memory=memory))
    except (RuntimeError, MemoryError, ValueError) as error:
        report(0, from_exception(error, Stage.CALLED))


@dataclasses.dataclass(kw_only=True)
class _Entry:
    """A cell in the race: its workload now, its samples so far, and the seconds of a warm call and of a build."""

    workload: Workload
    samples: Samples
    call_seconds: float
    build_seconds: float


@dataclasses.dataclass
class _Session:
    """What `time_cells` does."""

    _cells: Sequence[Cell]
    _options: MeasureOptions
    _workloads: Source
    _report: Report
    _tell: Announce
    _clock: Clock

    def __post_init__(self) -> None:
        self._until = self._clock() + self._options.budget_seconds
        # Each group has an order of rounds of its own.
        self._random = random.Random(f"{self._options.seed} {self._cells[0].suite}/{self._cells[0].group}")
        self._rounds_id = uuid.uuid4().hex
        self._passed: dict[int, Correctness] = {}
        self._entries: dict[int, _Entry] = {}
        self._padding: list[mx.array] = []

    def run(self) -> None:
        alike = grouped(range(len(self._cells)), lambda index: self._cells[index])
        for indices in alike.values():
            with self._out_if_it_fails(*indices):
                self._check(indices)
        # None of the arrays live on.
        gc.collect()
        mx.clear_cache()
        for index in self._shuffled(sorted(self._passed)):
            with self._out_if_it_fails(index):
                self._enter(index)
        gc.collect()
        gc.disable()
        try:
            self._take_rounds()
        finally:
            gc.enable()
        for index, entry in self._entries.items():
            outcome = Outcome(
                correctness=self._passed[index],
                samples=entry.samples,
                memory=_memory(entry.workload),
                work=entry.workload.work,
                function=entry.workload.function,
            )
            self._report(index, outcome)

    def _check(self, indices: list[int]) -> None:
        workload = self._build(indices[0])
        self._announce(indices[0], Stage.CHECKED)
        found = workload.check()
        for index in indices:
            if found.passed:
                self._passed[index] = found
            else:
                self._report(index, Outcome(status="incorrect", reason=found.checks, correctness=found))

    def _enter(self, index: int) -> None:
        begun = self._clock()
        workload = self._build_padded(index)
        self._announce(index, Stage.CALLED)
        first = timed(workload.call, self._clock)
        built = self._clock()
        before = functools.partial(self._announce, index, Stage.CALLED)
        warmup_calls, seconds = warm_up(workload.call, self._options, before=before, clock=self._clock)
        calls = calls_per_sample(seconds, self._cells[index].execution, self._options.sample_seconds)
        self._entries[index] = _Entry(
            workload=workload,
            # Not checked yet, for want of samples.
            samples=Samples.model_construct(
                first_call_seconds=first,
                warmup_calls=warmup_calls,
                calls_per_sample=calls,
                samples_seconds=[],
                rounds_id=self._rounds_id,
            ),
            call_seconds=seconds,
            build_seconds=built - begun + _SETTLING_CALLS * seconds,
        )

    def _take_rounds(self) -> None:
        for done in rounds_in_time(self._options.rounds, self._until, self._clock):
            if not self._entries:
                return
            if done and done % BLOCK == 0:
                self._build_anew()
            for index in self._shuffled(self._entries):
                with self._out_if_it_fails(index):
                    self._sample(index)

    def _sample(self, index: int) -> None:
        entry, execution = self._entries[index], self._cells[index].execution
        self._announce(index, Stage.CALLED)
        if entry.call_seconds < _SHORT_SECONDS:
            mx.eval(entry.workload.call())
        seconds = sample(entry.workload.call, execution, entry.samples.calls_per_sample, self._clock)
        entry.samples.samples_seconds.append(seconds)

    def _build_anew(self) -> None:
        """Unless building would take longer than the rounds that follow."""
        building = sum(entry.build_seconds for entry in self._entries.values())
        timing = sum(entry.samples.calls_per_sample * entry.call_seconds for entry in self._entries.values())
        if building > BLOCK * timing:
            return
        self._padding.clear()
        for index in self._shuffled(self._entries):
            with self._out_if_it_fails(index):
                entry = self._entries[index]
                # The old one goes last, so that the new one cannot take its place in memory.
                entry.workload = self._build_padded(index)
                self._announce(index, Stage.CALLED)
                for _ in range(_SETTLING_CALLS):
                    mx.eval(entry.workload.call())
        gc.collect()

    def _build_padded(self, index: int) -> Workload:
        padding = mx.zeros(self._random.randrange(1, _MAX_PADDING_BYTES), dtype=mx.uint8)
        mx.eval(padding)
        self._padding.append(padding)
        return self._build(index)

    def _build(self, index: int) -> Workload:
        self._announce(index, Stage.BUILT)
        return self._workloads.build(self._cells[index])

    def _announce(self, index: int, stage: Stage) -> None:
        self._stage = stage
        self._tell(index, stage)

    def _shuffled(self, indices: Iterable[int]) -> list[int]:
        order = list(indices)
        self._random.shuffle(order)
        return order

    @contextlib.contextmanager
    def _out_if_it_fails(self, *indices: int) -> Iterator[None]:
        """Whatever a cell raises becomes its outcome and that of its equals, and the others go on."""
        try:
            yield
        # A mechanism of any package may be measured: nobody can name what it raises.
        except Exception as error:
            outcome = from_exception(error, self._stage)
            if outcome.status == "crashed":
                logger.exception("%s crashed", self._cells[indices[0]].variant)
            for index in indices:
                self._entries.pop(index, None)
                self._report(index, dataclasses.replace(outcome, correctness=self._passed.get(index)))


def _memory(workload: Workload) -> Memory:
    by_formula = {"analytic_bytes": workload.analytic_bytes, "analytic_cache_bytes": workload.analytic_cache_bytes}
    return Memory(peak_bytes=None, **by_formula)


def peak_bytes_of_calls(call: Callable[[], object]) -> int:
    """Most bytes that MLX's allocator holds at one time during a call, after a first one that compiles.

    Everything that lives in this process counts: the call's inputs and weights, but also what has nothing to do with
    it, so that a process of its own is the place to ask. What the call returns is evaluated and dropped.
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
