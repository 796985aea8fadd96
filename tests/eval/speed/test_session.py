"""A group in a worker: checked before it is timed, built anew between blocks, and honest statistics at the end."""

import pytest

from eval.rows import Cell
from eval.speed.protocol import Failed, Finished, MeasureOptions, Report, Stage, Timed, TimingJob
from eval.speed.rounds import BLOCK
from eval.speed.session import Session
from eval.statistics.ratios import RatioEstimate, paired_ratio
from tests.eval.speed.cells import planted
from tests.eval.speed.clocked import BASE_SECONDS, CLOCK

OPTIONS = MeasureOptions(builders="tests.eval.speed.clocked")


def _run(*cells: Cell, seed: int = 0, rounds: int = 20) -> list[Report]:
    CLOCK.start(seed=seed)
    reports: list[Report] = []
    job = TimingJob(cells=cells, options=OPTIONS, rounds=rounds, seconds=None, label=f"group {seed}")
    Session(job, report=reports.append, announce=lambda index, stage: None, clock=CLOCK).run()
    assert isinstance(reports.pop(), Finished)
    return reports


def _ratios(above: str, *, pairs: int) -> list[RatioEstimate]:
    """Each pair has a baseline of its own, so that the ratios are independent of each other."""
    cells = [planted(name, length=pair + 1) for pair in range(pairs) for name in ("base", above)]
    found = {report.index: report.samples_seconds for report in _run(*cells) if isinstance(report, Timed)}
    return [paired_ratio(found[2 * pair + 1], found[2 * pair]) for pair in range(pairs)]


def test_every_cell_is_checked_before_any_is_called() -> None:
    _run(planted("base"), planted("other"))
    assert CLOCK.called[:2] == ["check base", "check other"]
    assert not [each for each in CLOCK.called[2:] if each.startswith("check")]


def test_what_fails_its_check_is_never_called() -> None:
    reports = {report.index: report for report in _run(planted("base"), planted("wrong"))}
    assert isinstance(reports[0], Timed)
    assert isinstance(reports[1], Failed)
    assert (reports[1].status, reports[1].reason) == ("incorrect", "values")
    assert reports[1].correctness is not None
    assert not reports[1].correctness.passed
    assert "wrong" not in CLOCK.called


def test_a_cell_and_its_control_are_one_check_and_two_builds() -> None:
    base = planted("base")
    _run(base, base, rounds=BLOCK)
    assert CLOCK.called.count("check base") == 1
    # One build for the check.
    assert CLOCK.built.count("base") == 3


def test_blocks_of_rounds_are_builds_of_their_own() -> None:
    _run(planted("base"), rounds=4 * BLOCK)
    assert CLOCK.built.count("base") == 1 + 4


def test_an_untimed_call_comes_right_before_each_sample_of_short_calls_and_of_no_others() -> None:
    reports = _run(planted("base"), planted("other"), planted("long"), rounds=BLOCK)
    for report in reports:
        assert isinstance(report, Timed)
        assert report.calls_per_sample == 1
        name = ("base", "other", "long")[report.index]
        each = 1 if name == "long" else 2
        assert CLOCK.called.count(name) == 1 + report.warmup_calls + each * BLOCK
        # Two calls are never that short.
        assert name == "long" or min(report.samples_seconds) < 1.8 * BASE_SECONDS
    rounds = [name for name in CLOCK.called[-BLOCK * 5 :] if name != "long"]
    assert rounds[::2] == rounds[1::2]


def test_all_cells_of_a_session_name_the_same_rounds_and_another_session_names_others() -> None:
    first, second = ({report.rounds_id for report in _run(planted("base"), planted("b"))} for _ in range(2))
    assert len(first) == len(second) == 1
    assert first != second


def test_each_step_is_announced_before_it_is_taken() -> None:
    CLOCK.start(seed=0)
    steps: list[tuple[int, Stage, int]] = []
    job = TimingJob(cells=(planted("base"), planted("b")), options=OPTIONS, rounds=BLOCK, seconds=None, label="")
    session = Session(
        job,
        report=lambda report: None,
        announce=lambda index, stage: steps.append((index, stage, len(CLOCK.called))),
        clock=CLOCK,
    )
    session.run()
    called = [name.removeprefix("check ") for name in CLOCK.called]
    for at, name in enumerate(called):
        announced = [index for index, _, calls_before in steps if calls_before <= at]
        assert ("base", "b")[announced[-1]] == name


def test_intervals_of_a_cell_against_itself_contain_one() -> None:
    # The clock has noise, stalls, drift, and luck of half a percent that lasts as long as a build does.
    ratios = _ratios("base again", pairs=60)
    assert sum(not ratio.differs for ratio in ratios) >= 0.9 * len(ratios)


def test_a_tenth_more_time_is_found() -> None:
    ratios = _ratios("slowed", pairs=20)
    assert sum(ratio.low is not None and ratio.low > 1 for ratio in ratios) >= 18
    assert all(ratio.ratio == pytest.approx(1.1, rel=0.05) for ratio in ratios)
