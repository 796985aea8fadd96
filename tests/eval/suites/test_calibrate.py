"""The calibration is made once, of everything, from rows; it is made anew when something changed."""

import functools
from collections.abc import Iterable
from pathlib import Path

import pytest

from eval.bench import Group
from eval.rows import Cell, Row, current_machine
from eval.suites import SuiteRequest, calibrate
from eval.suites.calibrate import MOST_TOKENS, PHASES, choosable_mechanisms
from tests.eval.rows_factory import altered, speed_row, untimed_row
from zoo.attention import mechanism
from zoo.attention.calibration import calibration_path, load_calibration
from zoo.attention.variants.adaptive import AdaptiveConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def _groups() -> list[Group]:
    return calibrate.SUITE.groups(SuiteRequest())


@functools.cache
def _cells() -> tuple[Cell, ...]:
    """Those of a machine without a calibration; planned once."""
    return tuple(cell for group in _groups() for cell in group.cells)


def _seconds(cell: Cell) -> float:
    """A time of its own for each cell."""
    return 1e-3 + int(cell.identity, 16) / 16**16


def _rows(cells: Iterable[Cell]) -> list[Row]:
    here = current_machine()
    return [speed_row(cell, [_seconds(cell)] * 5).model_copy(update={"machine": here}) for cell in cells]


def test_every_implementation_of_every_choosable_mechanism_is_measured_in_every_phase() -> None:
    found = {(*map(_mapping(cell).get, ("mechanism", "implementation")), cell.mode) for cell in _cells()}
    expected = {
        (name, implementation, mode)
        for name in choosable_mechanisms()
        for implementation in mechanism(name).implementations_here()
        for mode in PHASES
        # It is the fused kernel under another name.
        if (name, implementation) != ("softmax", "masked")
    }
    assert found == expected


def _mapping(cell: Cell) -> dict[str, str]:
    return cell.attention_mapping


def test_fused_softmax_is_the_baseline_of_every_group() -> None:
    for group in _groups():
        assert group.baseline.variant == "mha(implementation=fused)"


def test_what_cannot_win_a_long_text_is_not_timed_on_one() -> None:
    for cell in _cells():
        tokens = cell.batch_size * cell.length
        assert tokens <= MOST_TOKENS.get(_mapping(cell)["implementation"], tokens)


def test_what_was_measured_is_what_adaptive_attention_chooses_by() -> None:
    cells = _cells()
    calibrate.conclude(_rows(cells))
    known = load_calibration(None)
    assert known is not None
    assert len(known.measurements) == len(cells)
    assert known.provenance.commit == current_machine().commit
    chooser = AdaptiveConfig(of="sinks").chooser()
    for mode, phase in PHASES.items():
        at = [cell for cell in cells if (cell.mode, cell.batch_size, cell.length) == (mode, 1, 72)]
        rivals = {_mapping(cell)["implementation"]: cell for cell in at if _mapping(cell)["mechanism"] == "sinks"}
        fastest = min(rivals, key=lambda name: _seconds(rivals[name]))
        rows = at[0].num_heads
        assert chooser.choose(phase=phase, rows=rows, length=72, causal=True) == ("sinks", fastest)


def test_a_complete_calibration_is_up_to_date() -> None:
    calibrate.conclude(_rows(_cells()))
    assert _groups() == []
    assert calibrate.conclude([])["up_to_date"] is True
    assert load_calibration(None) is not None


def test_only_what_is_missing_is_measured_again() -> None:
    cells = _cells()
    missing = next(cell for cell in cells if cell.mode == "forward" and cell.length == 1024)
    rows = _rows([cell for cell in cells if cell != missing])
    calibrate.conclude([*rows, untimed_row(missing)])
    (group,) = _groups()
    assert missing in group.cells
    calibrate.conclude(_rows(list(group.cells)))
    assert _groups() == []
    known = load_calibration(None)
    assert known is not None
    assert len(known.measurements) == len(cells), "what was measured twice is kept once"


@pytest.mark.parametrize("field", ["device", "mlx", "attention_zoo", "blas", "backend"])
def test_rows_of_another_machine_or_version_leave_everything_to_measure(field: str) -> None:
    cells = _cells()
    other = current_machine().model_copy(update={field: "another"})
    calibrate.conclude([row.model_copy(update={"machine": other}) for row in _rows(cells)])
    assert tuple(cell for group in _groups() for cell in group.cells) == cells


def test_each_phase_has_one_control_which_is_no_calibration() -> None:
    groups = _groups()
    controlled = [group for group in groups if group.control]
    assert [group.baseline.mode for group in controlled] == list(PHASES)
    rows = _rows([cell for group in groups for cell in group.cells])
    # Faster than anything: it would be chosen if it counted.
    (control, *_) = _rows([group.control_cell for group in controlled])
    fast = altered(control, "timing", median_seconds=1e-9)
    assert calibrate.SUITE.summary([*rows, fast]) == calibrate.SUITE.summary(rows)
    calibrate.conclude([*rows, fast])
    known = load_calibration(None)
    assert known is not None
    assert len(known.measurements) == len(rows)
    assert min(each.median_seconds for each in known.measurements) >= 1e-3


def test_the_summary_names_the_fastest_of_each_setting() -> None:
    cells = [cell for cell in _cells() if cell.length == 1024]
    head, *found = calibrate.SUITE.summary(_rows(cells))
    assert head["measured"] == len(cells)
    assert calibrate.conclude(_rows(cells)) == {"calibration": str(calibration_path()), "up_to_date": False}
    assert len(found) == len(choosable_mechanisms()) * len(PHASES)
    for each in found:
        assert each["median_seconds"] == min(
            _seconds(cell)
            for cell in cells
            if (_mapping(cell)["mechanism"], PHASES[cell.mode]) == (each["mechanism"], each["phase"])
        )
