"""A calibration is made once, of everything, from rows; what is chosen by it is judged by rows too."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from eval.rows import Cell, Row, current_machine
from eval.suites import SuiteRequest, adaptive, calibrate, suites
from eval.suites.calibrate import MOST_TOKENS, PHASES, conclude
from tests.eval.rows_factory import altered, noisy, planned, speed_row, untimed_row
from tests.zoo.attention.planted import times, write_own
from zoo.attention import mechanism
from zoo.attention.calibration import Calibration, calibration_path, load_calibration
from zoo.attention.variants.adaptive import AdaptiveConfig

CHOOSABLE = [member.declared.name for member in calibrate.choosable()]
JUDGED: dict[str, Any] = {"lengths": (96,), "batch_sizes": (1,)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def _missing() -> tuple[Cell, ...]:
    """What this device's calibration lacks."""
    return tuple(cell for group in calibrate.SUITE.groups(SuiteRequest()) for cell in group.cells)


# Of a machine without a calibration; planned once.
_cells = functools.cache(_missing)


def _seconds(cell: Cell) -> float:
    """A time of its own for each cell."""
    return 1e-3 + int(cell.identity, 16) / 16**16


def _rows(cells: Iterable[Cell], seconds: Callable[[Cell], float] = _seconds, **machine: str) -> list[Row]:
    here = current_machine().model_copy(update=machine)
    return [speed_row(cell, [seconds(cell)] * 5).model_copy(update={"machine": here}) for cell in cells]


def _known() -> Calibration:
    known = load_calibration(None)
    assert known is not None
    return known


def test_every_implementation_that_may_win_is_measured_in_every_phase_against_fused_softmax() -> None:
    found = set()
    for cell in _cells():
        name, implementation = (cell.attention_mapping[key] for key in ("mechanism", "implementation"))
        found.add((name, implementation, cell.mode))
        tokens = cell.batch_size * cell.length
        assert tokens <= MOST_TOKENS.get(implementation, tokens)
        assert (cell.role == "baseline") == (cell.variant == "mha(implementation=fused)")
    assert found == {
        (name, implementation, mode)
        for name in CHOOSABLE
        for implementation in mechanism(name).implementations_here()
        for mode in PHASES
        # It is the fused kernel under another name.
        if (name, implementation) != ("softmax", "masked")
    }


def test_what_was_measured_is_what_adaptive_attention_chooses_by_and_the_summary_names() -> None:
    cells = _cells()
    assert conclude(_rows(cells)) == {"calibration": str(calibration_path()), "up_to_date": False}
    assert len(_known().measurements) == len(cells)
    assert _known().provenance.commit == current_machine().commit
    chooser = AdaptiveConfig(of="sinks").chooser()
    head, *figures = calibrate.SUITE.summary(_rows(cells))
    assert head["measured"] == len(cells)
    assert len(figures) == len(CHOOSABLE) * len(PHASES) * len(calibrate.SETTINGS)
    for mode, phase in PHASES.items():
        at = [cell for cell in cells if (cell.mode, cell.batch_size, cell.length) == (mode, 1, 72)]
        best = min((cell for cell in at if cell.attention_mapping["mechanism"] == "sinks"), key=_seconds)
        fastest = best.attention_mapping["implementation"]
        chosen = chooser.choose(phase=phase, rows=best.num_heads, length=72, causal=True)
        assert chosen == ("sinks", fastest)
        setting = {"mechanism": "sinks", "phase": phase, "batch_size": 1, "length": 72}
        assert {**setting, "fastest": fastest, "median_seconds": _seconds(best)} in figures


def test_only_what_is_missing_is_measured_again_and_what_is_complete_is_up_to_date() -> None:
    cells = _cells()
    missing = next(cell for cell in cells if cell.mode == "forward" and cell.length == 1024)
    conclude([*_rows([cell for cell in cells if cell != missing]), untimed_row(missing)])
    again = _missing()
    assert missing in again
    assert {(cell.mode, cell.length) for cell in again} == {("forward", 1024)}
    conclude(_rows(again))
    assert _missing() == ()
    assert conclude([]) == {"calibration": str(calibration_path()), "up_to_date": True}
    assert len(_known().measurements) == len(cells), "what was measured twice is kept once"


def test_rows_of_another_machine_leave_everything_to_measure() -> None:
    conclude(_rows(_cells(), device="another"))
    assert _missing() == _cells()


@pytest.mark.parametrize("name", ["calibrate", "adaptive"])
def test_each_phase_has_one_control_which_is_neither_calibration_nor_choice(name: str) -> None:
    groups, summary = suites()[name].groups(SuiteRequest()), suites()[name].summary
    controlled = [group for group in groups if group.control]
    assert [group.baseline.mode for group in controlled] == list(PHASES)
    rows = _rows(cell for group in groups for cell in group.cells)
    # Faster than anything: it would be chosen if it counted.
    controls = _rows([group.control_cell for group in controlled], lambda cell: 1e-9)
    assert summary([*rows, *controls]) == summary(rows) != []
    if name == "calibrate":
        conclude([*rows, *controls])
        assert min(each.median_seconds for each in _known().measurements) >= 1e-3


def _judged(*, seconds: float, another: bool = False, rounds_id: str | None = None) -> list[Row]:
    """Rows of adaptive attention, in rounds of their own if need be, whose choice takes 1 ms and every other 2 ms.

    Adaptive attention itself takes what is said, and may say that it chose another one.
    """
    rows = []
    for group in planned("adaptive", **JUDGED):
        ours = {cell.attention_mapping["of"]: cell for cell in group.cells if cell.detail}
        for cell in group.cells:
            mapping = cell.attention_mapping
            if cell.detail:
                row = speed_row(cell, noisy(seconds, seed=cell.identity))
                row = altered(row, "cell", detail="chosen=another") if another else row
                rows.append(altered(row, "timing", rounds_id=rounds_id))
            else:
                is_chosen = ours[mapping["mechanism"]].detail == f"chosen={mapping['implementation']}"
                rows.append(speed_row(cell, noisy(1e-3 if is_chosen else 2e-3, seed=cell.identity)))
    return rows


def test_choices_are_judged_at_lengths_that_were_held_out_and_where_there_are_two_to_choose_from() -> None:
    assert adaptive.SETTINGS == ((1, 96), (2, 192), (1, 384), (2, 384), (1, 768))
    assert not {length for _, length in adaptive.SETTINGS} & {length for _, length in calibrate.SETTINGS}
    cells = [cell for group in planned("adaptive") for cell in group.cells]
    choices = [(cell.group, cell.attention_mapping["of"]) for cell in cells if cell.detail]
    fixed = [(cell.group, cell.attention_mapping["mechanism"]) for cell in cells if not cell.detail]
    assert {(group.split(" ")[0], name) for group, name in choices} == {(m, n) for m in PHASES for n in CHOOSABLE}
    assert all(fixed.count(choice) > 1 for choice in choices)


def test_a_cell_names_what_today_s_calibration_chooses() -> None:
    def softmax_cell(**seconds: float) -> Cell:
        write_own(times("softmax", {name: {64: each} for name, each in seconds.items()}))
        cells = [cell for group in adaptive.SUITE.groups(SuiteRequest(**JUDGED)) for cell in group.cells]
        return next(cell for cell in cells if (cell.variant, cell.mode) == ("adaptive", "forward_backward"))

    before, after = softmax_cell(manual=0.5, fused=1.0), softmax_cell(manual=1.0, fused=0.5)
    assert (before.detail, after.detail) == ("chosen=manual", "chosen=fused")
    assert before.identity != after.identity, "rows of another choice must not be taken for this one's"


@pytest.mark.parametrize(
    ("seconds", "another", "best", "tied", "slower"),
    [
        pytest.param(1e-3, False, 1.0, 1.0, False, id="the best"),
        pytest.param(0.999e-3, True, 0.0, 1.0, False, id="tied with the best"),
        pytest.param(1.1e-3, True, 0.0, 0.0, False, id="worse"),
        pytest.param(1.0, False, 1.0, 1.0, True, id="slower than all, though it chose the best"),
    ],
)
def test_choices_are_told_from_the_best_and_from_the_worst_in_the_same_rounds(
    seconds, another, best, tied, slower
) -> None:
    head, *found = adaptive.SUITE.summary(_judged(seconds=seconds, another=another))
    assert len(found) == head["cells"] == len(CHOOSABLE) * len(PHASES)
    assert (head["best"], head["best_or_tied"]) == (best, tied)
    assert head["slower_than_worst"] == slower * len(found)
    assert head["met"] is (tied == 1.0 and not slower)
    assert all((each["chosen"] == each["best"]) is not another for each in found)
    assert adaptive.SUITE.summary(_judged(seconds=seconds, another=another, rounds_id="others")) == []
