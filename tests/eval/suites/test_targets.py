"""The suite of targets: each claim's two cells are measured, and judged by their ratio."""

import pytest

from eval.rows import Cell, Memory, Row
from eval.suites import targets
from tests.eval.rows_factory import group_rows, planned

GROUPS = planned("targets")
MET = {"swa_masked": 0.06, "swa": 0.01, "linear": 0.012, targets.BIDIRECTIONAL: 0.010}
PEAKS = {("swa", 1024): 100, ("swa", 2048): 210, ("mha_tiled", 4096): 14, ("mha_manual", 4096): 100}


def rows(seconds: dict[str, float], peaks: dict[tuple[str, int], int]) -> list[Row]:
    def with_memory(row: Row) -> Row:
        assert row.cell is not None
        peak = peaks.get((row.cell.variant, row.cell.length))
        return row if peak is None else row.model_copy(update={"memory": Memory(peak_bytes=peak)})

    def time(cell: Cell) -> float:
        return seconds.get(cell.variant.removesuffix(" (A/A)"), 0.01)

    return [with_memory(row) for group in GROUPS for row in group_rows(group, time, noise=1e-4)]


def met(found: list[Row]) -> dict[str, bool]:
    return {figure["figure"]: figure["met"] for figure in targets.SUITE.summary(found) if "met" in figure}


def test_every_target_is_judged_from_cells_that_the_suite_measures() -> None:
    assert met(rows(MET, PEAKS)) == dict.fromkeys(targets.TARGETS, True)
    for target in targets.TARGETS.values():
        for group, series in (target.above, target.below):
            (cells,) = [each for each in GROUPS if each.cells[0].group == group]
            assert series in {cell.variant for cell in cells.cells}
            assert not target.memory or cells.memory
    (causal, both) = GROUPS[-1].cells
    assert (causal.causal, both.causal) == (True, False)


@pytest.mark.parametrize(
    ("seconds", "peaks"),
    [
        ({"swa_masked": 0.039}, {}),
        ({"linear": 0.0131}, {}),
        ({}, {("swa", 2048): 231}),
        ({}, {("mha_tiled", 4096): 16}),
    ],
)
def test_a_ratio_on_the_wrong_side_misses_its_target_alone(seconds: dict, peaks: dict) -> None:
    assert sorted(met(rows(MET | seconds, PEAKS | peaks)).values()) == [False, True, True, True]


def test_what_was_not_measured_is_not_judged() -> None:
    found = met([row for row in rows(MET, {}) if row.cell.group != "window"])
    assert found == {"time of causal linear attention over bidirectional": True}
