"""One group in one worker: every cell checked, then built anew, warmed up, and timed against the others."""

import dataclasses
import functools
import gc
import importlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

import mlx.core as mx

from eval.rows import Cell, Correctness, Memory
from eval.speed.failures import from_exception
from eval.speed.protocol import Announce, Failed, Finished, Report, Stage, Timed, TimingJob
from eval.speed.rounds import BLOCK, Pace, run_rounds
from eval.speed.sampling import Clock, Warmth, calls_per_sample, sample, timed, warm_up
from eval.speed.subject import Subject

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Builders = Mapping[str, Callable[[Cell], Subject]]

# Calls of a subject that was built anew in a process that is warm already.
_SETTLING_CALLS = 2
# What ran before has filled the caches with its own. That costs a short call much, and one of several calls of a sample
# less than a single one; so ahead of samples of short calls there is one that is not timed.
_SHORT_SECONDS = 0.01
# Larger than a page, smaller than what matters: moves the arrays that are built next.
_MAX_PADDING_BYTES = 2**18


@dataclasses.dataclass(kw_only=True)
class _Entry:
    """A cell in the race."""

    cell: Cell
    correctness: Correctness
    subject: Subject
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
        *,
        report: Callable[[Report], None],
        announce: Announce,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Imports the builders.

        Args:
            job: What to do.
            report: Takes what was found.
            announce: Told of each step before it is taken.
            clock: For tests.
        """
        self._job, self._report, self._tell, self._clock = job, report, announce, clock
        self._stage = Stage.STARTING
        self._builders: Builders = importlib.import_module(job.options.builders).BUILDERS
        self._started = clock()
        self._random = random.Random(f"{job.options.seed} {job.label}")
        self._entries: dict[int, _Entry] = {}
        self._padding: list[mx.array] = []
        self._rounds_id = uuid.uuid4().hex

    def run(self) -> None:
        """Reports each cell as failed or timed, and then the end."""
        self._prepare(self._checked())
        pace = Pace(rounds=self._job.rounds, seconds=self._job.seconds, started=self._started, clock=self._clock)
        gc.collect()
        gc.disable()
        try:
            run_rounds(
                lambda: self._entries,
                self._take,
                pace=pace,
                seed=f"{self._job.options.seed} {self._job.label}",
                between_blocks=lambda _: self._build_anew(),
            )
        finally:
            gc.enable()
        for index, entry in self._entries.items():
            self._report(_timed(index, entry, self._rounds_id))
        self._report(Finished())

    def _checked(self) -> dict[int, Correctness]:
        """Checks each cell, equal ones once; none of the arrays live on."""
        by_identity: dict[str, Correctness | Failed] = {}
        passed = {}
        for index, cell in enumerate(self._job.cells):
            if cell.identity not in by_identity:
                by_identity[cell.identity] = self._check(index, cell)
            found = by_identity[cell.identity]
            if isinstance(found, Failed):
                self._report(dataclasses.replace(found, index=index))
            else:
                passed[index] = found
        gc.collect()
        mx.clear_cache()
        return passed

    def _check(self, index: int, cell: Cell) -> Correctness | Failed:
        self._announce(index, Stage.BUILDING)
        subject = self._attempt(index, lambda: self._builders[cell.builder](cell))
        if isinstance(subject, Failed):
            return subject
        self._announce(index, Stage.CHECKING)
        correctness = self._attempt(index, subject.check)
        if isinstance(correctness, Correctness) and not correctness.passed:
            return Failed(index=index, status="incorrect", reason=correctness.checks, correctness=correctness)
        return correctness

    def _prepare(self, passed: Mapping[int, Correctness]) -> None:
        order = list(passed)
        self._random.shuffle(order)
        for index in order:
            self._announce(index, Stage.BUILDING)
            correctness = passed[index]
            entry = self._attempt(index, functools.partial(self._entry, index, correctness))
            if isinstance(entry, Failed):
                self._report(dataclasses.replace(entry, correctness=correctness))
            else:
                self._entries[index] = entry

    def _entry(self, index: int, correctness: Correctness) -> _Entry:
        cell, options = self._job.cells[index], self._job.options
        begun = self._clock()
        self._pad()
        subject = self._builders[cell.builder](cell)
        self._announce(index, Stage.CALLING)
        first = timed(subject.call, self._clock)
        built = self._clock()
        warmth = warm_up(subject.call, options, before=lambda: self._announce(index, Stage.CALLING), clock=self._clock)
        return _Entry(
            cell=cell,
            correctness=correctness,
            subject=subject,
            first_call_seconds=first,
            warmth=warmth,
            calls=calls_per_sample(warmth, cell.execution, options.sample_seconds),
            build_seconds=built - begun + _SETTLING_CALLS * warmth.seconds,
        )

    def _take(self, index: int) -> None:
        entry = self._entries[index]
        self._announce(index, Stage.CALLING)
        taken = self._attempt(index, lambda: self._sample(entry))
        if isinstance(taken, Failed):
            self._drop(index, taken)
        else:
            entry.samples.append(taken)

    def _sample(self, entry: _Entry) -> float:
        if entry.warmth.seconds < _SHORT_SECONDS:
            mx.eval(entry.subject.call())
        return sample(entry.subject.call, entry.cell.execution, entry.calls, self._clock)

    def _build_anew(self) -> None:
        """Unless building would take longer than the rounds that follow."""
        building = sum(entry.build_seconds for entry in self._entries.values())
        timing = sum(entry.calls * entry.warmth.seconds for entry in self._entries.values())
        if building > BLOCK * timing:
            return
        order = list(self._entries)
        self._random.shuffle(order)
        self._padding.clear()
        for index in order:
            self._announce(index, Stage.BUILDING)
            failure = self._attempt(index, functools.partial(self._replace, index))
            if isinstance(failure, Failed):
                self._drop(index, failure)
        gc.collect()

    def _replace(self, index: int) -> None:
        entry = self._entries[index]
        self._pad()
        # The old one goes last, so that the new one cannot take its place in memory.
        entry.subject = self._builders[entry.cell.builder](entry.cell)
        self._announce(index, Stage.CALLING)
        for _ in range(_SETTLING_CALLS):
            mx.eval(entry.subject.call())

    def _pad(self) -> None:
        padding = mx.zeros(self._random.randrange(1, _MAX_PADDING_BYTES), dtype=mx.uint8)
        mx.eval(padding)
        self._padding.append(padding)

    def _drop(self, index: int, failure: Failed) -> None:
        entry = self._entries.pop(index)
        self._report(dataclasses.replace(failure, correctness=entry.correctness))

    def _announce(self, index: int, stage: Stage) -> None:
        self._stage = stage
        self._tell(index, stage)

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


def _timed(index: int, entry: _Entry, rounds_id: str) -> Timed:
    subject = entry.subject
    return Timed(
        index=index,
        exact_class=subject.exact_class,
        correctness=entry.correctness,
        work=subject.work,
        memory=Memory(
            peak_bytes=None,
            analytic_bytes=subject.analytic_bytes,
            analytic_cache_bytes=subject.analytic_cache_bytes,
        ),
        first_call_seconds=entry.first_call_seconds,
        warmup_calls=entry.warmth.calls,
        calls_per_sample=entry.calls,
        samples_seconds=tuple(entry.samples),
        rounds_id=rounds_id,
    )
