"""The device's own limits are measured for what the cells use, and read off their rows."""

from pathlib import Path

import pytest

from eval.rows import RowStore
from eval.speed.protocol import MeasureOptions
from eval.speed.reference import reference, reference_group
from eval.speed.runner import measure
from tests.eval.speed.cells import planted, planted_group


def test_each_dtype_has_a_peak_and_each_execution_a_floor() -> None:
    cells = [
        planted("one"),
        planted("two").model_copy(update={"dtype": "bfloat16"}),
        planted("three").model_copy(update={"execution": "throughput"}),
    ]
    wanted = {(cell.mode, cell.dtype, cell.execution) for cell in reference_group(cells).cells}
    assert wanted == {
        ("null", "float32", "latency"),
        ("null", "float32", "throughput"),
        ("matmul", "float32", "latency"),
        ("matmul", "bfloat16", "latency"),
        ("copy", "float32", "latency"),
        ("copy", "bfloat16", "latency"),
    }


def test_limits_are_those_of_the_rows_and_empty_without_them(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows.jsonl")
    measure(
        [planted_group("adds", control=False)],
        store=store,
        options=MeasureOptions(builders="tests.eval.speed.planted", rounds=5, sample_seconds=1e-4),
    )
    group = reference_group([planted("adds")])
    null, matmul, copy = (store.rows[cell.identity] for cell in group.cells)
    limits = reference(group, store.rows)
    assert limits.floor_seconds == {"latency": null.timing.median_seconds}
    best = min(matmul.timing.samples_seconds)
    assert limits.peak_flops_per_second == {"float32": pytest.approx(matmul.work.useful_flops / best)}
    fastest = min(copy.timing.samples_seconds)
    assert limits.bandwidth_bytes_per_second == {"float32": pytest.approx(copy.memory.analytic_bytes / fastest)}
    assert limits.is_overhead_bound("latency", 1.9 * null.timing.median_seconds)
    assert not limits.is_overhead_bound("latency", 2.1 * null.timing.median_seconds)
    nothing = reference(group, {})
    assert (nothing.floor_seconds, nothing.peak_flops_per_second, nothing.bandwidth_bytes_per_second) == ({}, {}, {})
    assert not nothing.is_overhead_bound("latency", 0.0)
