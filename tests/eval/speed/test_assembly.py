"""Rows say what follows from samples: estimates, comparisons within one group, utilisation, flags."""

import dataclasses

import pytest

from eval.rows import Cell, Correctness, Memory, Work
from eval.rows.schema import Machine
from eval.speed.assembly import control_cell, outcome_row, recorded_cells
from eval.speed.protocol import Failed, Timed
from eval.speed.reference import Reference
from tests.eval.speed.cells import planted, planted_group

MACHINE = Machine(
    device="test",
    backend="cpu",
    cores=1,
    blas="none",
    blas_threads=None,
    platform="",
    python="",
    attention_zoo=None,
    mlx=None,
    mlx_lm=None,
    numpy=None,
    commit=None,
    uncommitted_changes=None,
)
LIMITS = Reference(
    floor_seconds={"latency": 0.001},
    peak_flops_per_second={"float32": 8e6},
    bandwidth_bytes_per_second={"float32": 49_200},
)


def _timed(*seconds: float, exact_class: str = "softmax", rounds_id: str = "rounds") -> Timed:
    return Timed(
        index=0,
        exact_class=exact_class,
        correctness=Correctness(passed=True, checks="values", max_error=0.0, tolerance=1e-5),
        work=Work(useful_flops=20_000, tokens=5),
        memory=Memory(peak_bytes=None, analytic_bytes=123),
        first_call_seconds=1.0,
        warmup_calls=10,
        calls_per_sample=1,
        samples_seconds=seconds,
        rounds_id=rounds_id,
    )


def _row(outcome, base, *, cell: Cell | None = None):
    baseline = planted("base", role="baseline")
    return outcome_row(
        planted("other") if cell is None else cell,
        outcome,
        (baseline, base),
        machine=MACHINE,
        reference=LIMITS,
        memory=None,
    )


def test_the_ratio_is_paired_by_round() -> None:
    # The machine is ten times slower in the second round.
    row = _row(_timed(2.0, 20.0, 2.2), _timed(1.0, 10.0, 1.0))
    assert row.status == "ok"
    assert row.comparison.ratio == pytest.approx(2.0)
    assert row.comparison.same_function
    assert row.comparison.baseline == "base"


def test_one_sample_has_no_interval() -> None:
    row = _row(_timed(2.0), _timed(1.0))
    assert (row.timing.interval_low, row.timing.interval_high, row.timing.coefficient_of_variation) == (None,) * 3
    assert (row.comparison.ratio_low, row.comparison.ratio_high, row.comparison.p_value) == (None,) * 3


def test_utilisation_is_useful_work_over_the_measured_peak() -> None:
    row = _row(_timed(0.01, 0.01), _timed(0.01, 0.01))
    assert row.work.peak_flops_per_second == 8e6
    assert row.work.utilisation == pytest.approx(0.25)


def test_the_share_of_the_bandwidth_is_the_least_traffic_over_the_measured_copy() -> None:
    row = _row(_timed(0.01, 0.01), _timed(0.01, 0.01))
    assert row.work.bandwidth_bytes_per_second == 49_200
    assert row.work.bandwidth_share == pytest.approx(0.25)
    unknown = dataclasses.replace(_timed(0.01), memory=Memory(peak_bytes=None))
    assert _row(unknown, _timed(0.01)).work.bandwidth_share is None
    other = planted("other").model_copy(update={"dtype": "bfloat16"})
    assert _row(_timed(0.01), _timed(0.01), cell=other).work.bandwidth_share is None


def test_samples_of_other_rounds_are_not_paired() -> None:
    row = _row(_timed(2.0, 2.0), _timed(1.0, 1.0, rounds_id="others"))
    assert row.timing.rounds_id == "rounds"
    assert row.comparison is None


@pytest.mark.parametrize(
    ("seconds", "flags"),
    [((0.0019, 0.0019), ["overhead_bound"]), ((0.0021, 0.0021), []), ((0.1, 0.1, 0.1, 0.9), ["noisy"])],
)
def test_rows_that_say_little_are_flagged(seconds: tuple[float, ...], flags: list[str]) -> None:
    assert _row(_timed(*seconds), _timed(*seconds)).flags == flags


@pytest.mark.parametrize(
    ("exact_class", "change", "same"),
    [("softmax", {}, True), ("linear", {}, False), ("softmax", {"causal": False}, False)],
)
def test_only_equal_functions_are_called_so(exact_class: str, change: dict[str, object], same: bool) -> None:
    cell = planted("other").model_copy(update=change)
    row = _row(_timed(1.0, 1.0, exact_class=exact_class), _timed(1.0, 1.0), cell=cell)
    assert row.comparison.same_function is same


def test_without_a_baseline_that_was_timed_there_is_no_comparison() -> None:
    failed = Failed(index=0, status="crashed", reason="ended by SIGSEGV")
    assert _row(_timed(1.0, 1.0), failed).comparison is None
    baseline = planted("base", role="baseline")
    assert _row(_timed(1.0, 1.0), _timed(1.0, 1.0), cell=baseline).comparison is None


def test_what_failed_has_no_timing() -> None:
    wrong = Correctness(passed=False, checks="values", max_error=0.7, tolerance=1e-5)
    row = _row(Failed(index=0, status="incorrect", reason="values", correctness=wrong), _timed(1.0, 1.0))
    assert (row.status, row.reason, row.timing, row.comparison) == ("incorrect", "values", None, None)
    assert row.correctness == wrong


def test_a_control_is_the_baseline_under_a_name_of_its_own() -> None:
    group = planted_group("base", "other")
    control = control_cell(group)
    assert (control.variant, control.role) == ("base (A/A)", "control")
    assert control.identity != group.baseline.identity
    assert [cell.variant for cell in recorded_cells(group)] == ["base", "other", "base (A/A)"]
    assert len(recorded_cells(planted_group("base", "other", control=False))) == 2
