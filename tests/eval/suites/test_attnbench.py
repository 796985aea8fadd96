import json

import pytest

from eval.rows import Cell
from eval.suites.attnbench import LENGTHS, MODES, SUITE, all_series
from eval.suites.suite import SuiteRequest
from tests.eval.rows_factory import group_rows

GROUPS = SUITE.groups(SuiteRequest())
MAIN = {group.cells[0].group: group for group in GROUPS if not group.cells[0].group.startswith("causal")}
# Powers of the length and factors, so that every crossing and slope is known.
PACE = {"blocksparse": (1, 400.0), "linear": (1, 700.0), "swa_masked": (2, 1.0), "swa": (1, 64.0)}


def seconds(cell: Cell) -> float:
    power, factor = PACE.get(cell.variant.partition("(")[0], (2, 1.0))
    slower = {"mha": 0.5, "swa_gather_slices(window_size=64)": 6.0}.get(cell.variant, 1.0)
    return 1e-7 * factor * slower * cell.length**power * (1.25 if cell.causal else 1.0)


@pytest.fixture(scope="module")
def figures() -> list[dict[str, object]]:
    return SUITE.summary([row for group in GROUPS for row in group_rows(group, seconds, rounds=7, noise=0.002)])


def _mechanisms(group: str) -> set[str]:
    return {json.loads(str(cell.attention))["mechanism"] for cell in MAIN[group].cells}


def test_every_series_of_the_article_is_there_forward_at_every_published_length() -> None:
    names = [each.name for each in all_series()]
    assert len(names) == len(set(names)) == 21
    for length in LENGTHS[:-1]:
        assert [cell.variant for cell in MAIN[f"forward L={length}"].cells] == names
    assert _mechanisms(f"forward L={LENGTHS[-1]}") == {json.loads(each.attention)["mechanism"] for each in all_series()}


def test_backward_has_every_series_then_one_of_each_mechanism_then_the_windows() -> None:
    for length in (128, 256, 512):
        assert len(MAIN[f"forward_backward L={length}"].cells) == len(all_series())
    assert _mechanisms("forward_backward L=1024") == {"softmax", "sliding_window", "block_sparse", "linear"}
    longest = {cell.variant for cell in MAIN["forward_backward L=2048"].cells}
    implementations = ("swa", "swa_masked", "swa_gather_slices", "swa_gather_index")
    assert longest == {f"{name}(window_size=64)" for name in implementations}


def test_nothing_is_left_out_but_the_slices_of_long_backward_passes() -> None:
    cells = [cell for group in GROUPS for cell in group.cells if cell.identity in group.skipped]
    left_out = {(cell.group, cell.variant) for cell in cells}
    slices = "swa_gather_slices(window_size=64)"
    assert left_out == {("forward_backward L=1024", slices), ("forward_backward L=2048", slices)}


def test_the_published_setting_is_kept() -> None:
    for group in MAIN.values():
        for cell in group.cells:
            assert (cell.level, cell.batch_size, cell.num_heads, cell.head_dim) == ("layer", 1, 8, 64)
            assert not cell.causal
        baseline = (
            "mha_manual" if any(cell.variant == "mha_manual" for cell in group.cells) else "swa_masked(window_size=64)"
        )
        assert [cell.variant for cell in group.cells if cell.role == "baseline"] == [baseline]


def test_causal_linear_attention_meets_its_own_bidirectional_form() -> None:
    for mode in MODES:
        group = next(each for each in GROUPS if each.cells[0].group == f"causal {mode} L=512")
        found = [(cell.variant, cell.causal, cell.role) for cell in group.cells]
        assert found == [
            ("linear", False, "baseline"),
            ("linear", True, "candidate"),
            ("linear_cumsum", True, "candidate"),
        ]


def test_slopes_are_the_powers_of_the_length(figures: list[dict[str, object]]) -> None:
    slopes = {figure["variant"]: figure["value"] for figure in figures if figure["figure"] == "scaling exponent"}
    assert slopes["mha_manual"] == pytest.approx(2, abs=0.02)
    assert slopes["linear"] == pytest.approx(1, abs=0.02)


def test_crossovers_are_where_the_times_meet(figures: list[dict[str, object]]) -> None:
    crossovers = [figure for figure in figures if figure["figure"] == "crossover"]
    found = {(figure["variant"], figure["against"]): figure["length"] for figure in crossovers}
    assert found["linear", "mha_manual"] == pytest.approx(700, rel=0.05)
    assert found["linear", "mha"] == pytest.approx(1400, rel=0.05)
    assert found["blocksparse(block_size=32, num_global_tokens=1)", "mha_manual"] == pytest.approx(400, rel=0.05)


def test_the_gather_is_held_against_the_masked_window_of_the_same_rounds(figures: list[dict[str, object]]) -> None:
    name = "swa_gather_slices(window_size=64) over swa_masked(window_size=64)"
    found = {figure["group"]: figure["ratio"] for figure in figures if figure["figure"] == name}
    assert found["forward L=256"] == pytest.approx(6, rel=0.02)
    assert set(found) >= {f"forward L={length}" for length in LENGTHS}


def test_causality_is_held_against_the_same_rounds_without_it(figures: list[dict[str, object]]) -> None:
    found = [figure for figure in figures if figure["figure"] == "linear, causal over bidirectional"]
    assert len(found) == len(MODES) * len(LENGTHS)
    assert found[0]["ratio"] == pytest.approx(1.25, rel=0.02)


def test_lengths_and_modes_can_be_chosen() -> None:
    groups = SUITE.groups(SuiteRequest(lengths=(64,), modes=("forward",)))
    assert [group.cells[0].group for group in groups] == ["forward L=64", "causal forward L=64"]
