"""Makes speed rows without a clock: plausible samples in, whole rows out."""

import random
from collections.abc import Callable, Sequence

from eval.bench import Group
from eval.rows import Cell, Comparison, Correctness, Machine, Memory, Row, Timing, Work
from eval.rows.schema import Status
from eval.statistics.intervals import estimate
from eval.statistics.ratios import paired_ratio

MACHINE = Machine(
    device="Planted Processor, 2 cores, Linux CPU",
    backend="cpu",
    cores=2,
    blas="openblas",
    blas_threads=2,
    platform="Linux",
    python="3.11",
    attention_zoo="0.1.0",
    mlx="0.32.4",
    mlx_lm="0.32.2",
    numpy="2.0.0",
    commit="0123456789abcdef",
    uncommitted_changes=False,
)
RECORDED_AT = "2026-01-01T00:00:00.000+00:00"


def speed_row(
    cell: Cell,
    samples: Sequence[float],
    *,
    baseline: tuple[str, Sequence[float]] | None = None,
    same_function: bool = True,
    memory: Memory | None = None,
    work: Work | None = None,
) -> Row:
    """An ok row.

    Args:
        cell: What was measured.
        samples: Seconds, one for each round.
        baseline: Variant and samples of the group's baseline; None: the row is the baseline.
        same_function: Whether both compute the same.
        memory: Peak and cache bytes, or None.
        work: FLOPs and tokens; None for the tokens alone.
    """
    seconds = estimate(samples)
    timing = Timing(
        first_call_seconds=3 * seconds.median,
        warmup_calls=10,
        calls_per_sample=1,
        samples_seconds=list(samples),
        median_seconds=seconds.median,
        mean_seconds=seconds.mean,
        interval_low=seconds.interval_low,
        interval_high=seconds.interval_high,
        coefficient_of_variation=seconds.coefficient_of_variation,
    )
    comparison = None
    if baseline is not None:
        ratio = paired_ratio(samples, baseline[1])
        comparison = Comparison(
            baseline=baseline[0],
            same_function=same_function,
            ratio=ratio.ratio,
            ratio_low=ratio.low,
            ratio_high=ratio.high,
            p_value=ratio.p_value,
        )
    return Row(
        kind="speed",
        identity=cell.identity,
        status="ok",
        recorded_at=RECORDED_AT,
        machine=MACHINE,
        cell=cell,
        correctness=Correctness(passed=True, checks="planted", max_error=0.0, tolerance=1e-4),
        timing=timing,
        comparison=comparison,
        memory=memory,
        work=work or Work(useful_flops=None, tokens=cell.batch_size * cell.length),
    )


def untimed_row(cell: Cell, *, status: Status = "skipped", reason: str = "it would not fit") -> Row:
    """A row without a measurement."""
    return Row(
        kind="speed",
        identity=cell.identity,
        status=status,
        reason=reason,
        recorded_at=RECORDED_AT,
        machine=MACHINE,
        cell=cell,
    )


def noisy(seconds: float, *, rounds: int = 15, seed: object = 0, noise: float = 0.01) -> list[float]:
    """Samples around a time; the same seed gives the same."""
    generator = random.Random(str(seed))
    return [seconds * generator.lognormvariate(0, noise) for _ in range(rounds)]


def group_rows(group: Group, seconds: Callable[[Cell], float], *, rounds: int = 15, noise: float = 0.01) -> list[Row]:
    """An ok row of each cell of a group, and of its control.

    Args:
        group: Interleaved cells.
        seconds: True time of a cell.
        rounds: Samples of each.
        noise: Standard deviation of the logarithm of a sample.
    """
    base = group.baseline
    cells = list(group.cells)
    if group.control:
        cells.append(base.model_copy(update={"role": "control", "variant": f"{base.variant} (A/A)"}))
    base_samples = noisy(seconds(base), rounds=rounds, seed=base.identity, noise=noise)
    rows = []
    for cell in cells:
        if cell == base:
            rows.append(speed_row(cell, base_samples))
            continue
        samples = noisy(seconds(cell), rounds=rounds, seed=cell.identity, noise=noise)
        rows.append(speed_row(cell, samples, baseline=(base.variant, base_samples)))
    return rows
