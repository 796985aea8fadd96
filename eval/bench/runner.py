"""Measures groups of cells, one worker process each, and keeps their rows; goes on where an earlier run stopped."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from eval.bench import Group, source
from eval.bench.job import Failed, MeasureOptions, MemoryJob, Report, Timed, TimingJob
from eval.bench.process import StopRequestedError, Worker, WorkerDeathError, WorkerStartError
from eval.bench.records import DEVICE, Outcome, device_group, device_limits, outcome_row, row
from eval.rows import Cell, Machine, Memory, Row, RowStore, current_machine
from zoo.runtime.memory import usable_bytes

logger = logging.getLogger(__name__)

# Told of each group before it is measured: how many are done, of how many, and its name.
Progress = Callable[[int, int, str], None]
# Why a cell is not worth building, or None.
Refusal = Callable[[Cell], str | None]

MEMORY_NOT_MEASURED = "memory_not_measured"
# Begins the reason of a cell that a later run with more time measures after all.
TIME_BUDGET = "time budget"
# A time on two of these is the time of two different things.
_MACHINE = ("device", "backend", "cores", "blas", "blas_threads", "native", "mlx")
# What may have been mended since.
_FAULTS = ("crashed", "out_of_memory", "incorrect")
_CODE = ("commit", "attention_zoo")


def measure(
    groups: Sequence[Group],
    *,
    store: RowStore,
    options: MeasureOptions,
    progress: Progress = lambda done, total, name: None,
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
    device = device_group(cell for group in groups for cell in group.cells)
    run = _Run(store=store, options=options, machine=current_machine(), device=device, should_stop=should_stop)
    refusal = run.refusal()
    pending = [group for group in groups if not is_group_finished(group, store.rows, run.machine, refusal)]
    if not pending:
        return
    plan = [*([] if is_group_finished(device, store.rows, run.machine, refusal) else [device]), *pending]
    until = _after(options.budget_seconds)
    for done, group in enumerate(plan):
        progress(done, len(plan), group.name)
        left = _left(until)
        try:
            store.append(run.rows(group, None if left is None else left / (len(plan) - done)))
        except StopRequestedError:
            return


def _after(seconds: float | None) -> float | None:
    """When so much time is over; None for never."""
    return None if seconds is None else time.monotonic() + seconds


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What all groups share; of the cells whose memory was measured so far, their number and the time that it took."""

    store: RowStore
    options: MeasureOptions
    machine: Machine
    device: Group
    should_stop: Callable[[], bool]
    memory_cells: int = 0
    memory_seconds: float = 0.0

    def refusal(self) -> Refusal:
        """With what is available now."""
        given = self.options.available_bytes
        available = usable_bytes() if given is None else given
        return functools.partial(source(self.options.workloads).refusal, available_bytes=available)

    def rows(self, group: Group, seconds: float | None) -> list[Row]:
        """Measures a group in so many seconds (None: without a limit), or says why not."""
        cells = group.recorded_cells
        if seconds == 0:
            minutes = (self.options.budget_seconds or 0) / 60
            reason = f"{TIME_BUDGET} of {minutes:g} minutes was used up before"
            # What an earlier run found out stays.
            missing = [each for each in cells if not is_finished(self.store.rows.get(each.identity), self.machine)]
            return [row(cell, self.machine, status="skipped", reason=reason) for cell in missing]
        refusal = self.refusal()
        refused = {cell.identity: group.skipped.get(cell.identity) or refusal(group.built_as(cell)) for cell in cells}
        wanted = [cell for cell in cells if refused[cell.identity] is None]
        if seconds is not None and self.memory_cells:
            seconds -= len(_with_memory(wanted, group)) * self.memory_seconds / self.memory_cells
        outcomes = self._time(group, wanted, _after(seconds))
        limits = device_limits(self.device, self.store.rows)
        memory = self._memory_of([each for each in wanted if isinstance(outcomes[each.identity], Timed)], group)
        base = outcomes.get(group.baseline.identity)
        found = []
        for cell in cells:
            if cell.identity not in outcomes:
                found.append(row(cell, self.machine, status="skipped", reason=refused[cell.identity]))
                continue
            own = memory.get(cell.identity)
            result = outcome_row(
                cell,
                outcomes[cell.identity],
                None if base is None else (group.baseline, base),
                machine=self.machine,
                limits=limits,
                memory=own if isinstance(own, Memory) else None,
            )
            if isinstance(own, str):
                logger.warning("%s: memory was not measured: %s", cell.variant, own)
                result = result.model_copy(update={"flags": [*result.flags, f"{MEMORY_NOT_MEASURED}: {own}"]})
            found.append(result)
        return found

    def _time(self, group: Group, wanted: Sequence[Cell], until: float | None) -> dict[str, Outcome]:
        """Outcome of each cell by identity; a worker that dies over one cell is followed by one without it."""
        rounds = self.options.rounds if group.max_rounds is None else min(self.options.rounds, group.max_rounds)
        failed: dict[str, Outcome] = {}
        pardoned: set[str] = set()
        while remaining := [cell for cell in wanted if cell.identity not in failed]:
            built = tuple(group.built_as(cell) for cell in remaining)
            job = TimingJob(cells=built, options=self.options, rounds=rounds, seconds=_left(until), label=group.name)
            timed: dict[str, Outcome] = {}
            try:
                for report in self._reports(Worker(job)):
                    if isinstance(report, Failed):
                        failed[remaining[report.index].identity] = report
                    elif isinstance(report, Timed):
                        timed[remaining[report.index].identity] = report
                return {**failed, **timed}
            except WorkerDeathError as death:
                at_work = built[death.index]
                if at_work.identity not in pardoned and self._is_innocent(at_work, death):
                    pardoned.add(at_work.identity)
                    continue
                # The same cell built a second time would die as well.
                for index, cell in enumerate(remaining):
                    if built[index] == at_work:
                        failed[cell.identity] = Failed(index=index, status=death.status, reason=death.reason)
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
            return not any(isinstance(report, Failed) for report in self._reports(Worker(job)))
        except WorkerDeathError:
            return False

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
        self.memory_cells += len(asked)
        self.memory_seconds += time.monotonic() - begun
        return found

    def _started(self, cell: Cell, stack: contextlib.ExitStack) -> Worker:
        worker = Worker(MemoryJob(cell=cell, options=self.options))
        stack.callback(worker.stop)
        return worker

    def _memory(self, worker: Worker) -> Memory | str:
        """What a process of its own measured, or why it did not."""
        try:
            (report,) = self._reports(worker)
        except (WorkerDeathError, WorkerStartError) as death:
            return str(death)
        assert not isinstance(report, Timed), "a job about memory times nothing"
        return report.reason if isinstance(report, Failed) else report


def _with_memory(cells: Sequence[Cell], group: Group) -> list[Cell]:
    """Those whose memory is asked for."""
    return [cell for cell in cells if group.memory and cell.role != "control"]


def is_finished(found: Row | None, machine: Machine) -> bool:
    """Whether a row settles its cell on this machine, for good, or for ill as long as the code is the same."""
    if found is None or (found.reason or "").startswith(TIME_BUDGET):
        return False
    fields = (*_MACHINE, *_CODE) if found.status in _FAULTS else _MACHINE
    there, here = found.machine.model_dump(), machine.model_dump()
    return all(there[field] == here[field] for field in fields)


def is_group_finished(group: Group, rows: Mapping[str, Row], machine: Machine, refusal: Refusal) -> bool:
    """Whether rows settle all of a group.

    Args:
        group: Its cells, and its control.
        rows: By identity.
        machine: This one.
        refusal: What was skipped is unfinished if neither this nor the group speaks against it now.
    """
    found = {cell.identity: rows.get(cell.identity) for cell in group.recorded_cells}
    if not all(is_finished(each, machine) for each in found.values()):
        return False
    for cell in group.recorded_cells:
        each = found[cell.identity]
        is_skipped = each is not None and each.status == "skipped"
        if is_skipped and cell.identity not in group.skipped and refusal(group.built_as(cell)) is None:
            return False
    # The device's own rows are never paired, and those that another suite did not need are older.
    rounds = {each.timing.rounds_id for each in found.values() if each is not None and each.timing is not None}
    return len(rounds) <= 1 or group.baseline.suite == DEVICE
