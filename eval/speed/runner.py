"""Measures groups of cells, one worker process each, and keeps their rows; goes on where an earlier run stopped."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from eval.rows import Cell, Machine, Memory, Row, RowStore, current_machine
from eval.speed.assembly import Outcome, outcome_row, recorded_cells, row
from eval.speed.group import Group
from eval.speed.prediction import refusal
from eval.speed.process import StopRequestedError, Worker, WorkerDeathError, WorkerStartError
from eval.speed.protocol import Failed, Measured, MeasureOptions, MemoryJob, Report, Timed, TimingJob
from eval.speed.reference import DEVICE, Reference, measured_cells, reference, reference_group
from zoo.runtime.memory import usable_bytes

logger = logging.getLogger(__name__)

# Told of each group before it is measured: how many are done, of how many, and its name.
Progress = Callable[[int, int, str], None]

MEMORY_NOT_MEASURED = "memory_not_measured"


def measure(
    groups: Sequence[Group],
    *,
    store: RowStore,
    options: MeasureOptions,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Measures what the store does not hold yet.

    A group's rows are stored together, once it is through: what is interleaved is finished or begun anew as a whole,
    so that any two rows of a group pair by round.

    Args:
        groups: What to measure, in this order.
        store: Takes the rows; those of this machine that it holds are not measured again.
        options: How.
        progress: Told of each group.
        should_stop: Asked all the time; the group at work is then given up.
    """
    machine = current_machine()
    available = _available_bytes(options)
    pending = [group for group in groups if not is_group_finished(group, store.rows, machine, available)]
    if not pending:
        return
    device = reference_group(measured_cells(groups))
    plan = [*([] if is_group_finished(device, store.rows, machine, available) else [device]), *pending]
    budget = _Budget(options.budget_seconds)
    run = _Run(store=store, options=options, machine=machine, device=device, should_stop=should_stop)
    for done, group in enumerate(plan):
        if progress is not None:
            progress(done, len(plan), group.name)
        try:
            store.append(run.rows(group, budget.share(len(plan) - done)))
        except StopRequestedError:
            return


def _available_bytes(options: MeasureOptions) -> int:
    return usable_bytes() if options.available_bytes is None else options.available_bytes


class _Budget:
    """Time that is left, spread over the groups that are left."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.seconds = seconds

    def share(self, groups: int) -> float | None:
        """Seconds for the next of these groups: 0 where nothing is left, None without a limit."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic()) / groups


class MemoryClock:
    """How long measuring the memory of a cell takes, told from those measured so far."""

    def __init__(self) -> None:
        self._seconds, self._cells = 0.0, 0

    def expected(self, cells: int) -> float:
        """Seconds that so many cells will take; 0 as long as none was measured."""
        return cells * self._seconds / self._cells if self._cells else 0.0

    def add(self, seconds: float, cells: int) -> None:
        """Takes note."""
        self._seconds, self._cells = self._seconds + seconds, self._cells + cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """What all groups share."""

    store: RowStore
    options: MeasureOptions
    machine: Machine
    device: Group
    should_stop: Callable[[], bool]
    memory_clock: MemoryClock = dataclasses.field(default_factory=MemoryClock)

    def rows(self, group: Group, seconds: float | None) -> list[Row]:
        """Measures a group, or says why not."""
        cells = recorded_cells(group)
        if seconds == 0:
            minutes = (self.options.budget_seconds or 0) / 60
            reason = f"{TIME_BUDGET} of {minutes:g} minutes was used up before"
            # What an earlier run found out stays.
            missing = [each for each in cells if not is_finished(self.store.rows.get(each.identity), self.machine)]
            return [row(cell, self.machine, status="skipped", reason=reason) for cell in missing]
        available = _available_bytes(self.options)
        refused = {
            cell.identity: group.skipped.get(cell.identity) or refusal(built_as(cell, group), available)
            for cell in cells
        }
        wanted = [cell for cell in cells if refused[cell.identity] is None]
        later = self.memory_clock.expected(len(_with_memory(wanted, group)))
        outcomes = self._time(group, wanted, None if seconds is None else max(0.0, seconds - later))
        limits = reference(self.device, self.store.rows)
        memory = self._memory_of([each for each in wanted if isinstance(outcomes[each.identity], Timed)], group)
        return [
            self._row(group, cell, outcomes, limits, memory.get(cell.identity))
            if cell.identity in outcomes
            else row(cell, self.machine, status="skipped", reason=refused[cell.identity])
            for cell in cells
        ]

    def _row(
        self,
        group: Group,
        cell: Cell,
        outcomes: Mapping[str, Outcome],
        limits: Reference,
        memory: Memory | str | None,
    ) -> Row:
        outcome, base = outcomes[cell.identity], outcomes.get(group.baseline.identity)
        result = outcome_row(
            cell,
            outcome,
            None if base is None else (group.baseline, base),
            machine=self.machine,
            reference=limits,
            memory=memory if isinstance(memory, Memory) else None,
        )
        if isinstance(memory, str):
            logger.warning("%s: memory was not measured: %s", cell.variant, memory)
            return result.model_copy(update={"flags": [*result.flags, f"{MEMORY_NOT_MEASURED}: {memory}"]})
        return result

    def _time(self, group: Group, wanted: Sequence[Cell], seconds: float | None) -> dict[str, Outcome]:
        """Outcome of each cell by identity; a worker that dies over one cell is followed by one without it."""
        rounds = self.options.rounds if group.max_rounds is None else min(self.options.rounds, group.max_rounds)
        until = None if seconds is None else time.monotonic() + seconds
        failed: dict[str, Outcome] = {}
        pardoned: set[str] = set()
        while remaining := [cell for cell in wanted if cell.identity not in failed]:
            built = tuple(built_as(cell, group) for cell in remaining)
            left = None if until is None else max(0.0, until - time.monotonic())
            job = TimingJob(cells=built, options=self.options, rounds=rounds, seconds=left, label=group.name)
            timed: dict[str, Outcome] = {}
            try:
                for report in self._reports(Worker(job)):
                    if isinstance(report, Failed):
                        failed[remaining[report.index].identity] = report
                    elif isinstance(report, Timed):
                        timed[remaining[report.index].identity] = report
            except WorkerDeathError as death:
                at_work = built[death.index]
                if at_work.identity not in pardoned and self._is_innocent(at_work, death):
                    pardoned.add(at_work.identity)
                    continue
                # The same cell built a second time would die as well.
                for index, cell in enumerate(remaining):
                    if built[index] == at_work:
                        failed[cell.identity] = Failed(index=index, status=death.status, reason=death.reason)
                continue
            return {**failed, **timed}
        return failed

    def _is_innocent(self, cell: Cell, death: WorkerDeathError) -> bool:
        """Whether a cell over which the worker was killed lives through a round alone.

        Memory may have run out because of what else was in the process or on the machine.
        """
        if death.status != "out_of_memory":
            return False
        logger.warning("%s: %s; it is tried alone", cell.variant, death)
        job = TimingJob(cells=(cell,), options=self.options, rounds=1, seconds=None, label=cell.variant)
        try:
            reports = list(self._reports(Worker(job)))
        except WorkerDeathError:
            return False
        return not any(isinstance(report, Failed) for report in reports)

    def _reports(self, worker: Worker) -> Iterator[Report]:
        return worker.reports(step_seconds=self.options.step_seconds, should_stop=self.should_stop)

    def _memory_of(self, cells: Sequence[Cell], group: Group) -> dict[str, Memory | str]:
        """What each cell takes, by identity; while one process measures, the next one does its imports."""
        asked = _with_memory(cells, group)
        begun = time.monotonic()
        found = {}
        with contextlib.ExitStack() as stack:
            workers = (self._started(cell, stack) for cell in asked)
            following = next(workers, None)
            for cell in asked:
                current, following = following, next(workers, None)
                assert current is not None, "there are as many processes as cells"
                found[cell.identity] = self._memory(current)
        self.memory_clock.add(time.monotonic() - begun, len(asked))
        return found

    def _started(self, cell: Cell, stack: contextlib.ExitStack) -> Worker:
        worker = Worker(MemoryJob(cell=cell, options=self.options))
        stack.callback(worker.stop)
        return worker

    def _memory(self, worker: Worker) -> Memory | str:
        """What a process of its own measured, or why it did not."""
        found: Memory | str = "the process said nothing"
        try:
            for report in self._reports(worker):
                if isinstance(report, Measured):
                    found = report.memory
                elif isinstance(report, Failed):
                    found = report.reason
        except (WorkerDeathError, WorkerStartError) as death:
            return str(death)
        return found


def _with_memory(cells: Sequence[Cell], group: Group) -> list[Cell]:
    """Those whose memory is asked for."""
    return [cell for cell in cells if group.memory and cell.role != "control"]


# Begins the reason of a cell that a later run with more time measures after all.
TIME_BUDGET = "time budget"
# A time on two of these is the time of two different things.
_MACHINE = ("device", "backend", "cores", "blas", "blas_threads", "native", "mlx")
# What may have been mended since.
_FAULTS = ("crashed", "out_of_memory", "incorrect")
_CODE = ("commit", "attention_zoo")


def is_finished(row: Row | None, machine: Machine) -> bool:
    """Whether a row settles its cell on this machine, for good, or for ill as long as the code is the same."""
    if row is None or (row.reason or "").startswith(TIME_BUDGET):
        return False
    fields = (*_MACHINE, *_CODE) if row.status in _FAULTS else _MACHINE
    there, here = row.machine.model_dump(), machine.model_dump()
    return all(there[field] == here[field] for field in fields)


def is_group_finished(group: Group, rows: Mapping[str, Row], machine: Machine, available_bytes: int) -> bool:
    """Whether rows settle all of a group.

    Args:
        group: Its cells, and its control.
        rows: By identity.
        machine: This one.
        available_bytes: What was skipped is unfinished if nothing speaks against it now: these, or the group.
    """
    found = {cell.identity: rows.get(cell.identity) for cell in recorded_cells(group)}
    if not all(is_finished(row, machine) for row in found.values()):
        return False
    if any(_is_wanted_now(found[cell.identity], cell, group, available_bytes) for cell in recorded_cells(group)):
        return False
    # The device's own rows are never paired, and those that another suite did not need are older.
    rounds = {row.timing.rounds_id for row in found.values() if row is not None and row.timing is not None}
    return len(rounds) <= 1 or group.baseline.suite == DEVICE


def built_as(cell: Cell, group: Group) -> Cell:
    """A control is the baseline under another name."""
    return group.baseline if cell.role == "control" else cell


def _is_wanted_now(row: Row | None, cell: Cell, group: Group, available_bytes: int) -> bool:
    skipped = row is not None and row.status == "skipped"
    return skipped and cell.identity not in group.skipped and refusal(built_as(cell, group), available_bytes) is None
