"""Rows say what follows from samples: comparisons within one group, the device's limits, flags."""

import numpy as np
import pytest

from eval.bench.process import Outcome
from eval.bench.records import MEMORY_NOT_MEASURED, device_group, device_limits, outcome_row
from eval.rows import Cell, Correctness, Memory, Row, Samples, Work
from tests.eval.rows_factory import MACHINE, planted, planted_group, speed_row

LIMITS = {("null", "latency"): 0.001, ("matmul", "float32"): 8e6, ("copy", "float32"): 49_200}
BASE, OTHER = planted("base", role="baseline"), planted("other")


def _timed(
    *seconds: float, function: str = "softmax", rounds_id: str = "rounds", analytic: int | None = 123
) -> Outcome:
    called = {"first_call_seconds": 1.0, "warmup_calls": 10, "calls_per_sample": 1, "rounds_id": rounds_id}
    return Outcome(
        samples=Samples(samples_seconds=list(seconds), **called),
        memory=Memory(peak_bytes=None, analytic_bytes=analytic),
        work=Work(useful_flops=20_000, tokens=5),
        function=function,
    )


def _row(outcome: Outcome, base: Outcome, *, cell: Cell = OTHER, memory: Outcome | None = None) -> Row:
    return outcome_row(cell, outcome, machine=MACHINE, limits=LIMITS, baseline=(BASE, base), memory=memory)


def test_the_ratio_is_paired_by_round_and_the_timing_sums_its_samples_up() -> None:
    # The machine is ten times slower in the second round.
    seconds = (2.0, 20.0, 2.2)
    row = _row(_timed(*seconds), _timed(1.0, 10.0, 1.0))
    assert (row.status, row.comparison.baseline, row.comparison.same_function) == ("ok", "base", True)
    assert row.comparison.ratio == pytest.approx(2.0)
    assert (row.timing.median_seconds, row.timing.mean_seconds) == (2.2, np.mean(seconds))
    assert row.timing.coefficient_of_variation == pytest.approx(np.std(seconds, ddof=1) / np.mean(seconds))
    assert row.timing.interval_low < 2.2 < row.timing.interval_high
    once = _row(_timed(1.0, function="linear"), _timed(1.0))
    assert not once.comparison.same_function
    assert (once.timing.interval_low, once.timing.coefficient_of_variation) == (None, None)


def test_work_and_traffic_are_held_against_the_limits_of_the_cells_dtype() -> None:
    work = _row(_timed(0.01, 0.01), _timed(0.01, 0.01)).work
    assert (work.peak_flops_per_second, work.bandwidth_bytes_per_second) == (8e6, 49_200)
    assert (work.utilisation, work.bandwidth_share) == (pytest.approx(0.25), pytest.approx(0.25))
    assert _row(_timed(0.01, analytic=None), _timed(0.01)).work.bandwidth_share is None
    other = OTHER.model_copy(update={"dtype": "bfloat16"})
    assert _row(_timed(0.01), _timed(0.01), cell=other).work.bandwidth_share is None


@pytest.mark.parametrize(
    ("seconds", "flags"),
    [((0.0019, 0.0019), ["overhead_bound"]), ((0.0021, 0.0021), []), ((0.1, 0.1, 0.1, 0.9), ["noisy"])],
)
def test_rows_that_say_little_are_flagged(seconds: tuple[float, ...], flags: list[str]) -> None:
    assert _row(_timed(*seconds), _timed(*seconds)).flags == flags
    starved = _row(_timed(*seconds), _timed(*seconds), memory=Outcome(status="crashed", reason="ended"))
    assert starved.flags == [*flags, f"{MEMORY_NOT_MEASURED}: ended"]
    assert starved.memory.analytic_bytes == 123


def test_without_a_baseline_that_was_timed_in_the_same_rounds_there_is_no_comparison() -> None:
    assert _row(_timed(1.0, 1.0), Outcome(status="crashed", reason="ended by SIGSEGV")).comparison is None
    assert _row(_timed(1.0, 1.0), _timed(1.0, 1.0), cell=BASE).comparison is None
    assert _row(_timed(2.0, 2.0), _timed(1.0, 1.0, rounds_id="others")).comparison is None


def test_what_failed_has_no_timing() -> None:
    wrong = Correctness(passed=False, checks="values", max_error=0.7, tolerance=1e-5)
    row = _row(Outcome(status="incorrect", reason="values", correctness=wrong), _timed(1.0, 1.0))
    assert (row.status, row.reason, row.correctness) == ("incorrect", "values", wrong)
    assert (row.timing, row.comparison, row.memory, row.work, row.flags) == (None, None, None, None, [])


def test_a_control_is_the_baseline_under_a_name_of_its_own() -> None:
    group = planted_group("base", "other")
    control = group.control_cell
    assert (control.variant, control.role) == ("base (A/A)", "control")
    assert control.identity != group.baseline.identity
    assert group.built_as(control) == group.baseline
    assert [cell.variant for cell in group.recorded_cells] == ["base", "other", "base (A/A)"]
    assert len(planted_group("base", "other", control=False).recorded_cells) == 2


def test_each_dtype_has_a_peak_and_each_execution_a_floor() -> None:
    asked = {}, {"dtype": "bfloat16"}, {"execution": "throughput"}
    group = device_group(OTHER.model_copy(update=each) for each in asked)
    work, memory = Work(useful_flops=100), Memory(peak_bytes=None, analytic_bytes=60)
    rows = {cell.identity: speed_row(cell, [0.3, 0.25, 0.9], work=work, memory=memory) for cell in group.cells}
    assert device_limits(group, rows) == {
        ("null", "latency"): 0.3,
        ("null", "throughput"): 0.3,
        ("matmul", "float32"): 400.0,
        ("matmul", "bfloat16"): 400.0,
        ("copy", "float32"): 240.0,
        ("copy", "bfloat16"): 240.0,
    }
    assert device_limits(group, {}) == {}
