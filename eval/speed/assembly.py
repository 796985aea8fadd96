"""From what a worker found to rows: estimates, comparisons with the baseline, utilisation and flags."""

import datetime

from eval.rows import Cell, Comparison, Machine, Memory, Row, Timing, Work
from eval.rows.schema import Status
from eval.speed.group import Group
from eval.speed.protocol import Failed, Timed
from eval.speed.reference import DEVICE, Reference
from eval.statistics.intervals import estimate
from eval.statistics.ratios import paired_ratio
from zoo.attention.function import function_of

Outcome = Timed | Failed

# Spread beyond which a median of some twenty samples is worth little.
NOISY_VARIATION = 0.25


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
    reference: Reference,
    memory: Memory | None,
) -> Row:
    """The row of a cell that was tried.

    Args:
        cell: As it is stored.
        outcome: What became of it.
        baseline: The group's, if it was tried too.
        machine: Where.
        reference: The device's limits.
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
        "work": _work(cell, outcome, timing, reference),
        "flags": _flags(cell, timing, reference),
    }
    return row(cell, machine, status="ok").model_copy(update=updates)


def control_cell(group: Group) -> Cell:
    """The group's baseline once more, as A/A control."""
    return group.baseline.model_copy(update={"role": "control", "variant": f"{group.baseline.variant} (A/A)"})


def recorded_cells(group: Group) -> list[Cell]:
    """The cells of which a group leaves rows: its own, and its control."""
    return [*group.cells, *([control_cell(group)] if group.control else [])]


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
        same_function=computed_function(cell, outcome.exact_class) == computed_function(base_cell, base.exact_class),
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        p_value=ratio.p_value,
    )


def _work(cell: Cell, outcome: Timed, timing: Timing, reference: Reference) -> Work:
    """The subject's own, held against the device's limits."""
    flops, peak = outcome.work.useful_flops, reference.peak_flops_per_second.get(cell.dtype)
    moved, bandwidth = outcome.memory.analytic_bytes, reference.bandwidth_bytes_per_second.get(cell.dtype)
    return outcome.work.model_copy(
        update={
            "peak_flops_per_second": peak,
            "utilisation": _share(flops, timing.median_seconds, peak),
            "bandwidth_bytes_per_second": bandwidth,
            "bandwidth_share": _share(moved, timing.median_seconds, bandwidth),
        }
    )


def _share(amount: int | None, seconds: float, limit: float | None) -> float | None:
    return None if amount is None or limit is None else amount / seconds / limit


def _flags(cell: Cell, timing: Timing, reference: Reference) -> list[str]:
    flags = []
    if cell.suite != DEVICE and reference.is_overhead_bound(cell.execution, timing.median_seconds):
        flags.append("overhead_bound")
    variation = timing.coefficient_of_variation
    if variation is not None and variation > NOISY_VARIATION:
        flags.append("noisy")
    return flags


def computed_function(cell: Cell, exact_class: str) -> tuple[object, ...]:
    """Equal for two cells that compute the same values from the same inputs and weights.

    Args:
        cell: What is measured.
        exact_class: As its subject has it.
    """
    what = (cell.level, cell.mode, cell.model, cell.causal, cell.dtype)
    shape = (cell.batch_size, cell.length, cell.num_heads, cell.num_kv_heads, cell.head_dim, cell.hidden_size)
    if cell.attention is None:
        return (*what, *shape, exact_class)
    heads = {"num_heads": cell.num_heads, "num_kv_heads": cell.num_kv_heads}
    return (*what, *shape, exact_class, function_of(cell.attention_mapping, **heads))
