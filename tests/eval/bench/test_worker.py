"""Cells are checked before they are timed, built anew between blocks, and have honest statistics at the end."""

import pytest

from eval.bench import MeasureOptions
from eval.bench.process import Outcome, Stage
from eval.bench.worker import BLOCK, time_cells
from eval.rows import Cell
from eval.statistics import Contrast, paired_ratio
from tests.eval.bench import clocked
from tests.eval.bench.clocked import BASE_SECONDS, CLOCK
from tests.eval.rows_factory import planted


def _run(*cells: Cell, seed: int = 0, rounds: int = 20, announce=lambda index, stage: None) -> dict[int, Outcome]:
    CLOCK.start(seed=seed)
    outcomes: dict[int, Outcome] = {}
    options = MeasureOptions(rounds=rounds, seed=seed)
    time_cells(cells, options, clocked, outcomes.__setitem__, announce, CLOCK)
    return outcomes


def _rounds(names: str, count: int) -> list[str]:
    """The cells of each round, in order: the last calls, each of which is taken twice."""
    last = [name for name in CLOCK.called if not name.startswith("check")][-2 * len(names) * count :]
    assert last[::2] == last[1::2]
    return ["".join(last[at : at + 2 * len(names) : 2]) for at in range(0, len(last), 2 * len(names))]


def _ratios(above: str, *, pairs: int) -> list[Contrast]:
    """Each pair has a baseline of its own, so that the ratios are independent of each other."""
    cells = [planted(name, length=pair + 1) for pair in range(pairs) for name in ("base", above)]
    found = {index: outcome.samples.samples_seconds for index, outcome in _run(*cells).items()}
    return [paired_ratio(found[2 * pair + 1], found[2 * pair]) for pair in range(pairs)]


def test_every_cell_is_checked_before_any_is_called_and_what_fails_never_is() -> None:
    found = _run(planted("base"), planted("wrong"), planted("other"))
    assert CLOCK.called[:3] == ["check base", "check wrong", "check other"]
    assert not [each for each in CLOCK.called[3:] if each.startswith("check")]
    assert (found[0].status, found[1].status, found[1].reason) == ("ok", "incorrect", "values")
    assert not found[1].correctness.passed
    assert "wrong" not in CLOCK.called


def test_a_cell_and_its_control_are_one_check_and_each_block_of_rounds_is_a_build_of_its_own() -> None:
    base = planted("base")
    assert len(_run(base, base, rounds=4 * BLOCK)) == 2
    assert CLOCK.called.count("check base") == 1
    # One build for the check.
    assert CLOCK.built.count("base") == 1 + 2 * 4
    assert {outcome.status for outcome in _run(planted("wrong"), planted("wrong")).values()} == {"incorrect"}


def test_each_round_takes_every_cell_once_in_an_order_of_its_own_that_repeats_with_the_seed() -> None:
    cells = [planted(name) for name in "abcd"]
    found, names = [], []
    for seed in (0, 0, 1):
        outcomes = _run(*cells, seed=seed, rounds=BLOCK)
        names.append({outcome.samples.rounds_id for outcome in outcomes.values()})
        found.append(_rounds("abcd", BLOCK))
    assert found[0] == found[1] != found[2]
    assert [len(each) for each in (*names, set.union(*names))] == [1, 1, 1, 3], "each session's rounds have one name"
    assert all(sorted(order) == list("abcd") for order in found[0])
    assert len(set(found[0])) > 1


def test_a_cell_that_fails_is_out_and_the_others_go_on() -> None:
    found = _run(planted("base"), planted("breaks"), rounds=6 * BLOCK)
    assert len(found[0].samples.samples_seconds) == 6 * BLOCK
    assert (found[1].status, found[1].correctness.passed) == ("crashed", True)
    assert CLOCK.called.count("breaks") == clocked.CALLS_BEFORE_BREAKING


def test_an_untimed_call_comes_right_before_each_sample_of_short_calls_and_of_no_others() -> None:
    names = ("base", "other", "long")
    for index, outcome in _run(*map(planted, names), rounds=BLOCK).items():
        name, samples = names[index], outcome.samples
        assert samples.calls_per_sample == 1
        each = 1 if name == "long" else 2
        assert CLOCK.called.count(name) == 1 + samples.warmup_calls + each * BLOCK
        # Two calls are never that short.
        assert name == "long" or min(samples.samples_seconds) < 1.8 * BASE_SECONDS
    rounds = [name for name in CLOCK.called[-BLOCK * 5 :] if name != "long"]
    assert rounds[::2] == rounds[1::2]


def test_each_step_is_announced_before_it_is_taken() -> None:
    steps: list[tuple[int, Stage, int]] = []
    announce = lambda index, stage: steps.append((index, stage, len(CLOCK.called)))  # noqa: E731
    _run(planted("base"), planted("b"), rounds=BLOCK, announce=announce)
    called = [name.removeprefix("check ") for name in CLOCK.called]
    for at, name in enumerate(called):
        announced = [index for index, _, calls_before in steps if calls_before <= at]
        assert ("base", "b")[announced[-1]] == name


def test_intervals_of_a_cell_against_itself_contain_one_and_a_tenth_more_time_is_found() -> None:
    # The clock has noise, stalls, drift, and luck of half a percent that lasts as long as a build does.
    ratios = _ratios("base again", pairs=60)
    assert sum(not ratio.differs for ratio in ratios) >= 0.9 * len(ratios)
    ratios = _ratios("slowed", pairs=20)
    assert sum(ratio.low is not None and ratio.low > 1 for ratio in ratios) >= 18
    assert all(ratio.value == pytest.approx(1.1, rel=0.05) for ratio in ratios)
