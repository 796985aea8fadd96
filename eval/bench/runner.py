"""Measures groups of cells, one worker process each, and keeps their rows; goes on where an earlier run stopped."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from eval.bench import Group, MeasureOptions, source
from eval.bench.process import Outcome, StopRequestedError, Worker, WorkerStartError
from eval.bench.records import DEVICE, device_group, device_limits, outcome_row
from eval.bench.worker import measure_memory, time_cells
from eval.rows import Cell, Machine, Row, RowStore, current_machine
from zoo.runtime.memory import usable_bytes

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
# Why a cell is not worth building, or None.
Refusal = Callable[[Cell], str | None]

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
    """Measures, in this order, those groups of which the store does not hold all rows of this machine.

    A group's rows are stored together, once it is through: what is interleaved is finished or begun anew as a whole,
    so that any two rows of a group pair by round. Before each group `progress` is told how many are done, of how many,
    and its name. `should_stop` is asked all the time; the group at work is then given up.
    """
    device = device_group(cell for group in groups for cell in group.cells)
    run = _Run(store=store, options=options, machine=current_machine(), device=device, should_stop=should_stop)
    refusal = run.refusal()
    pending = [group for group in groups if not is_group_finished(group, store.rows, run.machine, refusal)]
    if not pending:
        return
    plan = [*([] if is_group_finished(device, store.rows, run.machine, refusal) else [device]), *pending]
    until = time.monotonic() + options.budget_seconds
    for done, group in enumerate(plan):
        progress(done, len(plan), group.name)
        left = max(0.0, until - time.monotonic())
        try:
            store.append(run.rows(group, left / (len(plan) - done)))
        except StopRequestedError:
            return


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

    def rows(self, group: Group, seconds: float) -> list[Row]:
        """Measures a group in so many seconds, or says why not."""
        cells = group.recorded_cells
        if seconds == 0:
            spent = f"{TIME_BUDGET} of {self.options.budget_seconds / 60:g} minutes was used up before"
            late = Outcome(status="skipped", reason=spent)
            # What an earlier run found out stays.
            missing = [each for each in cells if not is_finished(self.store.rows.get(each.identity), self.machine)]
            return [outcome_row(cell, late, machine=self.machine, limits={}) for cell in missing]
        refusal = self.refusal()
        reasons = {cell.identity: group.skipped.get(cell.identity) or refusal(group.built_as(cell)) for cell in cells}
        outcomes = {name: Outcome(status="skipped", reason=each) for name, each in reasons.items() if each is not None}
        wanted = [cell for cell in cells if cell.identity not in outcomes]
        with_memory = [cell for cell in wanted if group.memory and cell.role != "control"]
        if self.memory_cells:
            seconds -= len(with_memory) * self.memory_seconds / self.memory_cells
        outcomes |= self._time(group, wanted, time.monotonic() + seconds)
        memory = self._memory_of([cell for cell in with_memory if outcomes[cell.identity].status == "ok"])
        limits = device_limits(self.device, self.store.rows)
        return [
            outcome_row(
                cell,
                outcomes[cell.identity],
                machine=self.machine,
                limits=limits,
                baseline=(group.baseline, outcomes[group.baseline.identity]),
                memory=memory.get(cell.identity),
            )
            for cell in cells
        ]

    def _time(self, group: Group, wanted: Sequence[Cell], until: float) -> dict[str, Outcome]:
        """Outcome of each cell by identity; a worker that dies over one cell is followed by one without it."""
        rounds = self.options.rounds if group.max_rounds is None else min(self.options.rounds, group.max_rounds)
        failed: dict[str, Outcome] = {}
        pardoned: set[str] = set()
        while remaining := [cell for cell in wanted if cell.identity not in failed]:
            built = tuple(group.built_as(cell) for cell in remaining)
            left = max(0.0, until - time.monotonic())
            options = dataclasses.replace(self.options, rounds=rounds, budget_seconds=left)
            timed: dict[str, Outcome] = {}
            for index, outcome in Worker(time_cells, built, options).reports(self.should_stop):
                if outcome.ended_process:
                    at_work, fatal = built[index], outcome
                    break
                (timed if outcome.status == "ok" else failed)[remaining[index].identity] = outcome
            else:
                return failed | timed
            if at_work.identity not in pardoned and self._is_innocent(at_work, fatal):
                pardoned.add(at_work.identity)
                continue
            # The same cell built a second time would end it as well.
            alike = [cell for cell, each in zip(remaining, built, strict=True) if each == at_work]
            failed |= {cell.identity: fatal for cell in alike}
        return failed

    def _is_innocent(self, cell: Cell, fatal: Outcome) -> bool:
        """Whether a cell over which the worker was killed lives through a round alone.

        Memory may have run out because of what else was in the process or on the machine.
        """
        if fatal.status != "out_of_memory":
            return False
        logger.warning("%s: %s; it is tried alone", cell.variant, fatal.reason)
        options = dataclasses.replace(self.options, rounds=1, budget_seconds=math.inf)
        reports = Worker(time_cells, [cell], options).reports(self.should_stop)
        return all(outcome.status == "ok" for _, outcome in reports)

    def _memory_of(self, cells: Sequence[Cell]) -> dict[str, Outcome]:
        """What was found out about each cell's memory, by identity, in a process of its own."""
        begun = time.monotonic()
        found = {}
        with contextlib.ExitStack() as stack:
            started = (Worker(measure_memory, [cell], self.options) for cell in cells)
            workers = (stack.enter_context(contextlib.closing(worker)) for worker in started)
            # Taken two by two: while one process measures, the next one does its imports.
            for cell, (worker, _) in zip(cells, itertools.pairwise(itertools.chain(workers, [None])), strict=True):
                assert worker is not None, "there are as many processes as cells"
                try:
                    *_, (_, outcome) = worker.reports(self.should_stop)
                except WorkerStartError as error:
                    outcome = Outcome(status="crashed", reason=str(error))
                if outcome.memory is None:
                    logger.warning("%s: memory was not measured: %s", cell.variant, outcome.reason)
                found[cell.identity] = outcome
        self.memory_cells += len(cells)
        self.memory_seconds += time.monotonic() - begun
        return found


def is_finished(found: Row | None, machine: Machine) -> bool:
    """Whether a row settles its cell on this machine, for good, or for ill as long as the code is the same."""
    if found is None or (found.reason or "").startswith(TIME_BUDGET):
        return False
    fields = (*_MACHINE, *_CODE) if found.status in _FAULTS else _MACHINE
    return all(getattr(found.machine, field) == getattr(machine, field) for field in fields)


def is_group_finished(group: Group, rows: Mapping[str, Row], machine: Machine, refusal: Refusal) -> bool:
    """Whether rows, by identity, settle all of a group on this machine.

    What was skipped is unfinished if neither `refusal` nor the group speaks against it now.
    """
    rounds = set()
    for cell in group.recorded_cells:
        found = rows.get(cell.identity)
        if found is None or not is_finished(found, machine):
            return False
        is_skipped = found.status == "skipped" and cell.identity not in group.skipped
        if is_skipped and refusal(group.built_as(cell)) is None:
            return False
        if found.timing is not None:
            rounds.add(found.timing.rounds_id)
    # The device's own rows are never paired, and those that another suite did not need are older.
    return len(rounds) <= 1 or group.baseline.suite == DEVICE
