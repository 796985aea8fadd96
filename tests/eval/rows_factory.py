"""Makes rows without a clock or a training: plausible figures in, whole rows out."""

import functools
import json
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eval.bench import Group
from eval.rows import Cell, Correctness, CurvePoint, Machine, Memory, Quality, Row, Work
from eval.rows.schema import Status
from eval.suites import SuiteRequest, suites
from eval.suites.series import series_named

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
CURVE = (CurvePoint(tokens=10, seconds=0.5, value=3.0), CurvePoint(tokens=20, seconds=1.0, value=2.5))


def plain_cell(length: int = 64, **fields: Any) -> Cell:
    """A cell of an op that no test builds."""
    plain = {"suite": "s", "group": f"L={length}", "builder": "op", "variant": "mha", "level": "op", "mode": "forward"}
    return Cell.model_validate({**plain, "length": length, **fields})


def planted(variant: str, *, role: str = "candidate", length: int = 5, group: str = "planted") -> Cell:
    """A cell of the builders that tests of the clock time."""
    fields = {"suite": "tests", "builder": "planted", "level": "device", "mode": "null"}
    return plain_cell(length, variant=variant, role=role, group=group, **fields)


def planted_group(*variants: str, group: str = "planted", memory: bool = False, control: bool = True) -> Group:
    """The first is the baseline."""
    first, *others = variants
    cells = (planted(first, role="baseline", group=group), *(planted(name, group=group) for name in others))
    return Group(cells=cells, memory=memory, control=control)


def speed(length: int, seconds: float = 0.25) -> Row:
    """Three samples, and half the time of a baseline."""
    return speed_row(
        plain_cell(length), noisy(seconds, rounds=3), baseline=("mha_manual", noisy(2 * seconds, rounds=3))
    )


def skipped(length: int) -> Row:
    return untimed_row(plain_cell(length), reason="128 MiB do not fit")


def altered(row: Row, part: str, **fields: object) -> Row:
    """The row with other fields in one of its parts, such as its cell or its timing."""
    return row.model_copy(update={part: getattr(row, part).model_copy(update=fields)})


def altered_where(rows: Iterable[Row], is_meant: Callable[[Row], bool], part: str, **fields: object) -> list[Row]:
    """Alters those rows that are meant, and leaves the others as they are."""
    return [altered(row, part, **fields) if is_meant(row) else row for row in rows]


def speed_row(
    cell: Cell,
    samples: Sequence[float],
    *,
    baseline: tuple[str, Sequence[float]] | None = None,
    memory: Memory | None = None,
    work: Work | None = None,
) -> Row:
    """An ok row of samples in seconds; of the baseline, if it is another row, there are variant and samples."""
    median, low, high = _interval(samples)
    mean = statistics.fmean(samples)
    timing: dict[str, Any] = {"first_call_seconds": 3 * median, "warmup_calls": 10, "calls_per_sample": 1}
    timing |= {"samples_seconds": list(samples), "median_seconds": median, "mean_seconds": mean}
    timing |= {"interval_low": low, "interval_high": high}
    timing |= {"coefficient_of_variation": None if low is None else statistics.stdev(samples) / mean}
    comparison: dict[str, Any] | None = None
    if baseline is not None:
        ratio, low, high = _interval([above / below for above, below in zip(samples, baseline[1], strict=True)])
        comparison = {"baseline": baseline[0], "same_function": True, "p_value": None if low is None else 0.5}
        comparison |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
    return _row(
        cell.identity,
        cell=cell,
        correctness=Correctness(passed=True, checks="planted", max_error=0.0, tolerance=1e-4),
        timing=timing,
        comparison=comparison,
        memory=memory,
        work=work or Work(useful_flops=None, tokens=cell.batch_size * cell.length),
    )


def _row(identity: str, *, status: Status = "ok", **parts: Any) -> Row:
    kind = "speed" if "cell" in parts else "quality"
    named = {"kind": kind, "identity": identity, "status": status, "recorded_at": RECORDED_AT, "machine": MACHINE}
    return Row(**named, **parts)


def _interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """A median between plausible ends. The bootstrap of a real row takes a hundred times as long."""
    median = statistics.median(values)
    if len(values) < 2:
        return median, None, None
    half = 2.5 * statistics.stdev(map(math.log, values)) / math.sqrt(len(values))
    return median, median * math.exp(-half), median * math.exp(half)


def untimed_row(cell: Cell, *, status: Status = "skipped", reason: str = "it would not fit") -> Row:
    """A row without a measurement."""
    return _row(cell.identity, status=status, reason=reason, cell=cell)


def quality_row(variant: str, seed: int, value: float | None, **fields: object) -> Row:
    """The bits per byte of a training on equal tokens, or what the fields say."""
    asked = {
        "task": "language",
        "metric": "bits_per_byte",
        "standard_error": None,
        "count": None,
        "variant": variant,
        "attention": None if "attention" in fields else attention(variant),
        "model": "gpt_tiny",
        "data": "stdlib",
        "budget": "equal_tokens",
        "seed": seed,
        **fields,
    }
    return _quality_row(Quality.model_validate({**asked, "value": value}))


def changed(row: Row, **fields: object) -> Row:
    """A quality row with other fields, and the name that they give it."""
    assert row.quality is not None
    return _quality_row(row.quality.model_copy(update=fields))


def _quality_row(quality: Quality) -> Row:
    named = quality.model_dump(exclude={"value", "curve"})
    return _row(f"quality {json.dumps(named, sort_keys=True)}", quality=quality)


@functools.cache
def attention(name: str) -> str:
    """What a shipped variant computes, as rows have it."""
    return series_named(name).attention


@functools.cache
def planned(name: str, **request: Any) -> tuple[Group, ...]:
    """What a suite measures for a request whose fields are hashable; planned once for all tests."""
    return tuple(suites()[name].groups(SuiteRequest(**request)))


def noisy(seconds: float, *, rounds: int = 15, seed: object = 0, noise: float = 0.01) -> list[float]:
    """Samples around a time; the same seed gives the same."""
    generator = random.Random(str(seed))
    return [seconds * generator.lognormvariate(0, noise) for _ in range(rounds)]


def group_rows(group: Group, seconds: Callable[[Cell], float], *, rounds: int = 15, noise: float = 0.01) -> list[Row]:
    """An ok row of each cell of a group, and of its control, whose logarithms have such noise around the true time."""
    cells, base = group.recorded_cells, group.baseline
    samples = {cell: noisy(seconds(cell), rounds=rounds, seed=cell.identity, noise=noise) for cell in cells}
    shown = base.variant, samples[base]
    return [speed_row(cell, own, baseline=None if cell == base else shown) for cell, own in samples.items()]
