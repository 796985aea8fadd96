"""From what a worker found out to rows: comparisons with the baseline, the device's limits, and flags."""

import datetime
from collections.abc import Iterable, Mapping

import numpy as np

from eval.bench import Group
from eval.bench.process import Outcome
from eval.rows import Cell, Comparison, Machine, Row, Samples, Timing, Work
from eval.statistics import median_of, paired_ratio

# A cell below so many times the device's floor says more of the dispatch than of the work.
OVERHEAD_FACTOR = 2.0
# Spread beyond which a median of some twenty samples is worth little.
NOISY_VARIATION = 0.25
MEMORY_NOT_MEASURED = "memory_not_measured"
# Suite, group and builder of the device's own cells.
DEVICE = "device"
_DEVICE_ROUNDS = 5

# What the device itself can do: seconds of a call that does next to nothing, as ("null", execution); FLOPs per second
# of a matrix product, as ("matmul", dtype); bytes per second, read and written together, of a copy, as ("copy", dtype).
Limits = Mapping[tuple[str, str], float]


def device_group(cells: Iterable[Cell]) -> Group:
    """What to measure of the device for these cells: a null call, and a matrix product and a copy of each dtype."""
    needed = list(cells)
    asked = [
        {"mode": "null", "variant": "null call", "execution": execution}
        for execution in sorted({cell.execution for cell in needed})
    ]
    for dtype in sorted({cell.dtype for cell in needed}):
        asked.append({"mode": "matmul", "variant": "matrix product", "dtype": dtype})
        asked.append({"mode": "copy", "variant": "copy", "dtype": dtype})
    # A device has no length and no heads: its cells are one size, which their builder knows.
    named = {"suite": DEVICE, "group": DEVICE, "builder": DEVICE, "level": "device", "length": 1}
    wanted = tuple(Cell.model_validate({**named, **fields}) for fields in asked)
    return Group(cells=wanted, control=False, max_rounds=_DEVICE_ROUNDS)


def device_limits(group: Group, rows: Mapping[str, Row]) -> Limits:
    """The limits that rows of the device's group say; without those that are missing."""
    limits: dict[tuple[str, str], float] = {}
    for cell in group.cells:
        found = rows.get(cell.identity)
        if found is None or found.timing is None:
            continue
        # A peak is the best that it ever did, a floor what is usual.
        best = min(found.timing.samples_seconds)
        if cell.mode == "null":
            limits["null", cell.execution] = found.timing.median_seconds
        elif cell.mode == "matmul" and found.work is not None and found.work.useful_flops is not None:
            limits["matmul", cell.dtype] = found.work.useful_flops / best
        elif cell.mode == "copy" and found.memory is not None and found.memory.analytic_bytes is not None:
            limits["copy", cell.dtype] = found.memory.analytic_bytes / best
    return limits


def outcome_row(
    cell: Cell,
    outcome: Outcome,
    *,
    machine: Machine,
    limits: Limits,
    baseline: tuple[Cell, Outcome] | None = None,
    memory: Outcome | None = None,
) -> Row:
    """The row of a cell, beside the group's baseline, and with what a process of its own found out about its memory."""
    timing = None if outcome.samples is None else _timing(outcome.samples)
    flags = [] if timing is None else _flags(cell, timing, limits)
    if memory is not None and memory.memory is None:
        flags.append(f"{MEMORY_NOT_MEASURED}: {memory.reason}")
    return Row(
        kind="speed",
        identity=cell.identity,
        status=outcome.status,
        reason=outcome.reason,
        flags=flags,
        recorded_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        machine=machine,
        cell=cell,
        correctness=outcome.correctness,
        timing=timing,
        comparison=None if baseline is None else _comparison(cell, outcome, *baseline),
        memory=outcome.memory if memory is None or memory.memory is None else memory.memory,
        work=None if timing is None else _work(cell, outcome, timing.median_seconds, limits),
    )


def _timing(samples: Samples) -> Timing:
    seconds = np.asarray(samples.samples_seconds)
    median, mean = median_of(samples.samples_seconds), float(seconds.mean())
    return Timing(
        **samples.model_dump(),
        median_seconds=median.value,
        mean_seconds=mean,
        interval_low=median.low,
        interval_high=median.high,
        coefficient_of_variation=float(seconds.std(ddof=1)) / mean if seconds.size > 1 else None,
    )


def _comparison(cell: Cell, outcome: Outcome, base_cell: Cell, base: Outcome) -> Comparison | None:
    ours, theirs = outcome.samples, base.samples
    if cell == base_cell or cell.suite == DEVICE:
        return None
    if ours is None or theirs is None or ours.rounds_id != theirs.rounds_id:
        return None
    ratio = paired_ratio(ours.samples_seconds, theirs.samples_seconds)
    return Comparison(
        baseline=base_cell.variant,
        same_function=outcome.function == base.function,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        p_value=ratio.p_value,
    )


def _work(cell: Cell, outcome: Outcome, seconds: float, limits: Limits) -> Work:
    """The workload's own, held against the device's limits."""
    assert outcome.work is not None, "what was timed says how much work it is"
    flops, peak = outcome.work.useful_flops, limits.get(("matmul", cell.dtype))
    moved = None if outcome.memory is None else outcome.memory.analytic_bytes
    bandwidth = limits.get(("copy", cell.dtype))
    return outcome.work.model_copy(
        update={
            "peak_flops_per_second": peak,
            "utilisation": None if flops is None or peak is None else flops / seconds / peak,
            "bandwidth_bytes_per_second": bandwidth,
            "bandwidth_share": None if moved is None or bandwidth is None else moved / seconds / bandwidth,
        }
    )


def _flags(cell: Cell, timing: Timing, limits: Limits) -> list[str]:
    flags = []
    floor = limits.get(("null", cell.execution), 0.0)
    if cell.suite != DEVICE and timing.median_seconds < OVERHEAD_FACTOR * floor:
        flags.append("overhead_bound")
    if (timing.coefficient_of_variation or 0.0) > NOISY_VARIATION:
        flags.append("noisy")
    return flags
