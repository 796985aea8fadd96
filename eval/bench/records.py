"""From what a worker found to rows: comparisons with the baseline, the device's limits, and flags."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping

from eval.bench import Group
from eval.bench.job import Failed, Timed
from eval.rows import Cell, Comparison, Machine, Memory, Row, Timing, Work
from eval.rows.cell import Execution
from eval.rows.schema import Status
from eval.statistics.intervals import estimate
from eval.statistics.ratios import paired_ratio

Outcome = Timed | Failed

# A cell below so many times the device's floor says more of the dispatch than of the work.
OVERHEAD_FACTOR = 2.0
# Spread beyond which a median of some twenty samples is worth little.
NOISY_VARIATION = 0.25
# Suite, group and builder of the device's own cells.
DEVICE = "device"
_DEVICE_ROUNDS = 5


def device_group(cells: Iterable[Cell]) -> Group:
    """What to measure of the device for these cells: a null call, and a matrix product and a copy of each dtype."""
    needed = list(cells)
    wanted = [
        _device_cell(mode="null", variant="null call", execution=execution)
        for execution in sorted({cell.execution for cell in needed})
    ]
    for dtype in sorted({cell.dtype for cell in needed}):
        wanted.append(_device_cell(mode="matmul", variant="matrix product", dtype=dtype))
        wanted.append(_device_cell(mode="copy", variant="copy", dtype=dtype))
    return Group(cells=tuple(wanted), control=False, max_rounds=_DEVICE_ROUNDS)


def _device_cell(**fields: str) -> Cell:
    # A device has no length and no heads: its cells are one size, which their builder knows.
    named = {"suite": DEVICE, "group": DEVICE, "builder": DEVICE, "level": "device", "length": 1}
    return Cell.model_validate({**named, **fields})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the device itself can do.

    Attributes:
        floor_seconds: Of a call that does next to nothing, by execution.
        peak_flops_per_second: Of matrix products, by dtype.
        bandwidth_bytes_per_second: Of a copy, read and written bytes together, by dtype.
    """

    floor_seconds: Mapping[Execution, float] = dataclasses.field(default_factory=dict)
    peak_flops_per_second: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bandwidth_bytes_per_second: Mapping[str, float] = dataclasses.field(default_factory=dict)


def device_limits(group: Group, rows: Mapping[str, Row]) -> Limits:
    """The limits that rows of the device's group say; empty where they are missing."""
    floor: dict[Execution, float] = {}
    peak: dict[str, float] = {}
    bandwidth: dict[str, float] = {}
    for cell in group.cells:
        found = rows.get(cell.identity)
        if found is None or found.timing is None:
            continue
        # A peak is the best that it ever did, a floor what is usual.
        best = min(found.timing.samples_seconds)
        if cell.mode == "null":
            floor[cell.execution] = found.timing.median_seconds
        elif cell.mode == "matmul" and found.work is not None and found.work.useful_flops is not None:
            peak[cell.dtype] = found.work.useful_flops / best
        elif cell.mode == "copy" and found.memory is not None and found.memory.analytic_bytes is not None:
            bandwidth[cell.dtype] = found.memory.analytic_bytes / best
    return Limits(floor_seconds=floor, peak_flops_per_second=peak, bandwidth_bytes_per_second=bandwidth)


def row(cell: Cell, machine: Machine, *, status: Status, reason: str | None = None) -> Row:
    """A row of a cell without any measurement."""
    return Row(
        kind="speed",
        identity=cell.identity,
        status=status,
        reason=reason,
        recorded_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        machine=machine,
        cell=cell,
    )


def outcome_row(
    cell: Cell,
    outcome: Outcome,
    baseline: tuple[Cell, Outcome] | None,
    *,
    machine: Machine,
    limits: Limits,
    memory: Memory | None,
) -> Row:
    """The row of a cell that was tried.

    Args:
        cell: As it is stored.
        outcome: What became of it.
        baseline: The group's, if it was tried too.
        machine: Where.
        limits: The device's.
        memory: Measured in a process of its own; None for what the timing process knows.
    """
    if isinstance(outcome, Failed):
        failed = row(cell, machine, status=outcome.status, reason=outcome.reason)
        return failed.model_copy(update={"correctness": outcome.correctness})
    timing = _timing(outcome)
    updates = {
        "correctness": outcome.correctness,
        "timing": timing,
        "comparison": _comparison(cell, outcome, baseline),
        "memory": outcome.memory if memory is None else memory,
        "work": _work(cell, outcome, timing.median_seconds, limits),
        "flags": _flags(cell, timing, limits),
    }
    return row(cell, machine, status="ok").model_copy(update=updates)


def _timing(outcome: Timed) -> Timing:
    seconds = estimate(outcome.samples_seconds)
    return Timing(
        first_call_seconds=outcome.first_call_seconds,
        warmup_calls=outcome.warmup_calls,
        calls_per_sample=outcome.calls_per_sample,
        samples_seconds=list(outcome.samples_seconds),
        rounds_id=outcome.rounds_id,
        median_seconds=seconds.median,
        mean_seconds=seconds.mean,
        interval_low=seconds.interval_low,
        interval_high=seconds.interval_high,
        coefficient_of_variation=seconds.coefficient_of_variation,
    )


def _comparison(cell: Cell, outcome: Timed, baseline: tuple[Cell, Outcome] | None) -> Comparison | None:
    if baseline is None or cell.suite == DEVICE:
        return None
    base_cell, base = baseline
    if cell == base_cell or isinstance(base, Failed) or outcome.rounds_id != base.rounds_id:
        return None
    ratio = paired_ratio(outcome.samples_seconds, base.samples_seconds)
    return Comparison(
        baseline=base_cell.variant,
        same_function=outcome.function == base.function,
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        p_value=ratio.p_value,
    )


def _work(cell: Cell, outcome: Timed, seconds: float, limits: Limits) -> Work:
    """The workload's own, held against the device's limits."""
    flops, peak = outcome.work.useful_flops, limits.peak_flops_per_second.get(cell.dtype)
    moved, bandwidth = outcome.memory.analytic_bytes, limits.bandwidth_bytes_per_second.get(cell.dtype)
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
    floor = limits.floor_seconds.get(cell.execution)
    if cell.suite != DEVICE and floor is not None and timing.median_seconds < OVERHEAD_FACTOR * floor:
        flags.append("overhead_bound")
    variation = timing.coefficient_of_variation
    if variation is not None and variation > NOISY_VARIATION:
        flags.append("noisy")
    return flags
