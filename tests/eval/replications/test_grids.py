"""The cells that the documents fix, and the summary that all repeated experiments have."""

import pytest

from eval.replications import attnbench, grid48
from eval.rows import Cell
from tests.eval.rows_factory import group_rows, planned, untimed_row

GROUPS = {group.cells[0].group: group for group in planned("attnbench")}
MAIN = {name: group for name, group in GROUPS.items() if not name.startswith("causal")}
EVERY_MECHANISM = {"softmax", "sliding_window", "block_sparse", "block_sparse_legacy", "linear"}


def mechanisms(group: str) -> set[str]:
    return {cell.attention_mapping["mechanism"] for cell in MAIN[group].cells}


def test_every_series_of_the_article_is_there_as_far_as_the_documents_say() -> None:
    assert len(attnbench.LONGEST) == 21
    for mode, lengths in (("forward", (128, 256, 512, 1024)), ("forward_backward", (128, 256, 512))):
        for length in lengths:
            assert {cell.variant for cell in MAIN[f"{mode} L={length}"].cells} == set(attnbench.LONGEST)
    assert mechanisms("forward L=2048") == EVERY_MECHANISM
    assert mechanisms("forward_backward L=1024") == EVERY_MECHANISM - {"block_sparse_legacy"}
    longest = {cell.variant for cell in MAIN["forward_backward L=2048"].cells}
    assert longest == {attnbench.MASKED, *attnbench.WINDOWS}


def test_the_published_setting_is_kept_and_only_slices_of_long_backward_passes_are_left_out() -> None:
    left_out = set()
    for name, group in GROUPS.items():
        for cell in group.cells:
            assert (cell.level, cell.batch_size, cell.num_heads, cell.head_dim) == ("layer", 1, 8, 64)
            assert not cell.causal or name not in MAIN
        left_out |= {(name, cell.variant) for cell in group.cells if cell.identity in group.skipped}
    for name, group in MAIN.items():
        assert group.baseline.variant == (attnbench.MASKED if name == "forward_backward L=2048" else "mha_manual")
    slices = "swa_gather_slices(window_size=64)"
    assert left_out == {("forward_backward L=1024", slices), ("forward_backward L=2048", slices)}


def test_causal_linear_attention_meets_its_own_bidirectional_form() -> None:
    for mode in attnbench.MODES:
        found = [(cell.variant, cell.causal, cell.role) for cell in GROUPS[f"causal {mode} L=512"].cells]
        candidates = [("linear", True, "candidate"), ("linear_cumsum", True, "candidate")]
        assert found == [("linear", False, "baseline"), *candidates]


def test_the_summary_says_how_times_grow_and_where_they_cross() -> None:
    def seconds(cell: Cell) -> float:
        """Quadratic, and linear from four times as much on, so that they meet at 512; causal groups grow with L³."""
        if cell.group.startswith("causal"):
            return 1e-12 * cell.length**3
        return 1e-9 * cell.length * (512 if cell.variant == "linear" else cell.length)

    groups = planned("attnbench", lengths=(256, 512, 1024), modes=("forward",))
    assert [group.cells[0].group for group in groups][:2] == ["forward L=256", "causal forward L=256"]
    rows = [row for group in groups for row in group_rows(group, seconds, noise=0.001)]
    figures = attnbench.SUITE.summary(rows)
    slopes = {each["variant"]: each for each in figures if each["figure"] == "scaling exponent"}
    for name, slope in (("linear", 1), ("mha_manual", 2)):
        assert slopes[name]["value"] == pytest.approx(slope, abs=0.01)
        assert slopes[name]["low"] < slopes[name]["value"] < slopes[name]["high"]
    crossings = {(each["variant"], each["against"]): each for each in figures if each["figure"] == "crossover"}
    assert crossings["linear", "mha_manual"]["length"] == pytest.approx(512, rel=0.02)
    assert len(crossings) == 4


def test_a_summary_over_groups_counts_what_is_sure() -> None:
    def seconds(cell: Cell) -> float:
        fast = {"mha": 0.5, "mha_tiled": 1.0 if cell.length < 512 else 0.25}
        return 1e-3 * fast.get(cell.variant, 1.0)

    rows = [row for group in planned("grid48") for row in group_rows(group, seconds, noise=0.001)]
    rows = [untimed_row(row.cell) if row.cell.variant == "metal_kernel_poc" else row for row in rows]
    figures = {figure["figure"]: figure for figure in grid48.SUITE.summary(rows)}
    # Without controls of the six largest.
    assert figures["rows by status"] == {"figure": "rows by status", "ok": 48 * 4 - 6, "skipped": 48}
    fused, tiled = figures["mha over mha_manual"], figures["mha_tiled over mha_manual"]
    assert fused["median"] == pytest.approx(0.5, rel=0.01)
    assert (fused["groups"], fused["surely_faster"], fused["surely_slower"]) == (48, 48, 0)
    assert tiled["surely_faster"] < 24
    assert (tiled["least"], tiled["most"]) == pytest.approx((0.25, 1.0), rel=0.01)
    assert figures["mha_manual (A/A) over mha_manual"]["median"] == pytest.approx(1, rel=0.01)
    assert "metal_kernel_poc over mha_manual" not in figures


def test_the_wrapper_has_six_shapes_two_batches_and_both_ways_to_run() -> None:
    layers = []
    for group in planned("wrapper"):
        inlined, layer = group.cells
        own = {"variant": "mha_hand_inlined", "builder": "hand_inlined", "role": "baseline"}
        assert inlined == layer.model_copy(update=own)
        assert (layer.variant, layer.builder, layer.role) == ("mha", "layer", "candidate")
        layers.append(layer)
    assert len({(each.length, each.hidden_size, each.num_heads) for each in layers}) == 6
    assert len({each.identity for each in layers}) == len(layers) == 6 * 2 * 2
    assert {(each.batch_size, each.compiled) for each in layers} == {(1, True), (1, False), (4, True), (4, False)}
