"""Rows say what follows from samples: comparisons within one group, the device's limits, flags."""

import pytest

from eval.bench.job import Failed, Timed
from eval.bench.records import Limits, device_group, device_limits, outcome_row
from eval.rows import Cell, Correctness, Memory, Work
from tests.eval.rows_factory import MACHINE, planted, planted_group, speed_row

LIMITS = Limits(
    floor_seconds={"latency": 0.001},
    peak_flops_per_second={"float32": 8e6},
    bandwidth_bytes_per_second={"float32": 49_200},
)
BASE = planted("base", role="baseline")


def _timed(*seconds: float, function: str = "softmax", rounds_id: str = "rounds", analytic: int | None = 123) -> Timed:
    return Timed(
        index=0,
        correctness=Correctness(passed=True, checks="values", max_error=0.0, tolerance=1e-5),
        function=function,
        work=Work(useful_flops=20_000, tokens=5),
        memory=Memory(peak_bytes=None, analytic_bytes=analytic),
        first_call_seconds=1.0,
        warmup_calls=10,
        calls_per_sample=1,
        samples_seconds=seconds,
        rounds_id=rounds_id,
    )


def _row(outcome, base, *, cell: Cell | None = None):
    cell = planted("other") if cell is None else cell
    return outcome_row(cell, outcome, (BASE, base), machine=MACHINE, limits=LIMITS, memory=None)


def test_the_ratio_is_paired_by_round() -> None:
    # The machine is ten times slower in the second round.
    row = _row(_timed(2.0, 20.0, 2.2), _timed(1.0, 10.0, 1.0))
    assert (row.status, row.comparison.baseline, row.comparison.same_function) == ("ok", "base", True)
    assert row.comparison.ratio == pytest.approx(2.0)
    assert not _row(_timed(1.0, function="linear"), _timed(1.0)).comparison.same_function


def test_work_and_traffic_are_held_against_the_limits_of_the_cells_dtype() -> None:
    work = _row(_timed(0.01, 0.01), _timed(0.01, 0.01)).work
    assert (work.peak_flops_per_second, work.bandwidth_bytes_per_second) == (8e6, 49_200)
    assert (work.utilisation, work.bandwidth_share) == (pytest.approx(0.25), pytest.approx(0.25))
    assert _row(_timed(0.01, analytic=None), _timed(0.01)).work.bandwidth_share is None
    other = planted("other").model_copy(update={"dtype": "bfloat16"})
    assert _row(_timed(0.01), _timed(0.01), cell=other).work.bandwidth_share is None


@pytest.mark.parametrize(
    ("seconds", "flags"),
    [((0.0019, 0.0019), ["overhead_bound"]), ((0.0021, 0.0021), []), ((0.1, 0.1, 0.1, 0.9), ["noisy"])],
)
def test_rows_that_say_little_are_flagged(seconds: tuple[float, ...], flags: list[str]) -> None:
    assert _row(_timed(*seconds), _timed(*seconds)).flags == flags


def test_without_a_baseline_that_was_timed_in_the_same_rounds_there_is_no_comparison() -> None:
    failed = Failed(index=0, status="crashed", reason="ended by SIGSEGV")
    assert _row(_timed(1.0, 1.0), failed).comparison is None
    assert _row(_timed(1.0, 1.0), _timed(1.0, 1.0), cell=BASE).comparison is None
    assert _row(_timed(2.0, 2.0), _timed(1.0, 1.0, rounds_id="others")).comparison is None


def test_what_failed_has_no_timing() -> None:
    wrong = Correctness(passed=False, checks="values", max_error=0.7, tolerance=1e-5)
    row = _row(Failed(index=0, status="incorrect", reason="values", correctness=wrong), _timed(1.0, 1.0))
    assert (row.status, row.reason, row.timing, row.comparison) == ("incorrect", "values", None, None)
    assert row.correctness == wrong


def test_a_control_is_the_baseline_under_a_name_of_its_own() -> None:
    group = planted_group("base", "other")
    control = group.control_cell
    assert (control.variant, control.role) == ("base (A/A)", "control")
    assert control.identity != group.baseline.identity
    assert group.built_as(control) == group.baseline
    assert [cell.variant for cell in group.recorded_cells] == ["base", "other", "base (A/A)"]
    assert len(planted_group("base", "other", control=False).recorded_cells) == 2


def test_each_dtype_has_a_peak_and_each_execution_a_floor() -> None:
    cells = [
        planted("one"),
        planted("two").model_copy(update={"dtype": "bfloat16"}),
        planted("three").model_copy(update={"execution": "throughput"}),
    ]
    assert {(cell.mode, cell.dtype, cell.execution) for cell in device_group(cells).cells} == {
        ("null", "float32", "latency"),
        ("null", "float32", "throughput"),
        ("matmul", "float32", "latency"),
        ("matmul", "bfloat16", "latency"),
        ("copy", "float32", "latency"),
        ("copy", "bfloat16", "latency"),
    }


def test_limits_are_those_of_the_rows_and_empty_without_them() -> None:
    group = device_group([planted("adds")])
    work, memory = Work(useful_flops=100), Memory(peak_bytes=None, analytic_bytes=60)
    rows = {cell.identity: speed_row(cell, [0.3, 0.25, 0.9], work=work, memory=memory) for cell in group.cells}
    assert device_limits(group, rows) == Limits(
        floor_seconds={"latency": 0.3},
        peak_flops_per_second={"float32": 400.0},
        bandwidth_bytes_per_second={"float32": 240.0},
    )
    assert device_limits(group, {}) == Limits()
