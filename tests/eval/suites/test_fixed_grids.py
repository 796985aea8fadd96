"""The suites whose cells the documents fix: grid48, wrapper and layouts."""

import pytest

from eval.suites import grid48, layouts, wrapper
from eval.suites.suite import SuiteRequest
from tests.eval.rows_factory import group_rows, untimed_row

REQUEST = SuiteRequest()


def test_the_grid_has_48_cells_of_three_implementations_and_the_kernel() -> None:
    groups = grid48.SUITE.groups(REQUEST)
    assert len({group.cells[0].group for group in groups}) == 48
    for group in groups:
        assert [cell.variant for cell in group.cells] == ["mha_manual", "mha", "mha_tiled", "metal_kernel_poc"]
        cell = group.cells[0]
        assert cell.group == f"B={cell.batch_size} L={cell.length} H={cell.head_dim}"
        assert not cell.causal


def test_the_grid_s_summary_counts_what_is_sure() -> None:
    rows = []
    for group in grid48.SUITE.groups(REQUEST):
        pace = {"mha": 0.5, "mha_tiled": 1.0 if group.cells[0].length < 512 else 0.25}
        rows += group_rows(group, lambda cell, pace=pace: 1e-3 * pace.get(cell.variant, 1.0), noise=0.001)
    rows = [untimed_row(row.cell) if row.cell.variant == "metal_kernel_poc" else row for row in rows]
    figures = {figure["figure"]: figure for figure in grid48.SUITE.summary(rows)}
    # Without controls of the six largest.
    assert figures["rows by status"] == {"figure": "rows by status", "ok": 48 * 4 - 6, "skipped": 48}
    fused, tiled = figures["mha over mha_manual"], figures["mha_tiled over mha_manual"]
    assert fused["median"] == pytest.approx(0.5, rel=0.01)
    assert (fused["cells"], fused["surely_faster"], fused["surely_slower"]) == (48, 48, 0)
    assert tiled["surely_faster"] < 24
    assert tiled["least"] == pytest.approx(0.25, rel=0.01)
    assert figures["mha_manual over itself (A/A)"]["median"] == pytest.approx(1, rel=0.01)
    assert "metal_kernel_poc over mha_manual" not in figures


def test_the_wrapper_has_six_shapes_two_batches_and_both_ways_to_run() -> None:
    groups = wrapper.SUITE.groups(REQUEST)
    points = set()
    for group in groups:
        inlined, layer = group.cells
        assert (inlined.variant, inlined.builder, inlined.role) == ("mha_hand_inlined", "hand_inlined", "baseline")
        assert (layer.variant, layer.builder, layer.role) == ("mha", "layer", "candidate")
        differing = {"variant", "builder", "role"}
        assert inlined.model_dump(exclude=differing) == layer.model_dump(exclude=differing)
        points.add((layer.length, layer.hidden_size, layer.num_heads, layer.batch_size, layer.compiled))
    shapes = [(32, 512, 8), (64, 512, 8), (128, 512, 8), (256, 512, 8), (64, 768, 12), (512, 512, 8)]
    assert points == {(*shape, batch, compiled) for shape in shapes for batch in (1, 4) for compiled in (True, False)}


def test_the_wrapper_s_summary_names_the_worst() -> None:
    rows = []
    for group in wrapper.SUITE.groups(REQUEST):
        slow = 1.5 if group.cells[0].group.endswith("B=4 eager") and group.cells[0].length == 32 else 1.01
        rows += group_rows(group, lambda cell, slow=slow: 1e-3 * (slow if cell.variant == "mha" else 1), noise=0.001)
    figures = {figure["figure"]: figure for figure in wrapper.SUITE.summary(rows)}
    worst = figures["worst ratio"]
    assert worst["group"] == "L=32 D=512 N=8 B=4 eager"
    assert worst["ratio"] == pytest.approx(1.5, rel=0.01)
    assert worst["met"] is False
    assert worst["surely_missed"] == ["L=32 D=512 N=8 B=4 eager"]
    assert figures["largest difference of the outputs"]["value"] == 0


def test_both_subjects_meet_all_five_layouts() -> None:
    groups = layouts.SUITE.groups(REQUEST)
    assert [group.cells[0].group for group in groups] == [
        "linear B=1",
        "linear B=4",
        "attention B=1",
        "attention B=4",
    ]
    for group in groups:
        assert [cell.variant for cell in group.cells] == [
            "(B,L,D) native",
            "(L,B,D) native",
            "transposed view",
            "transposed, contiguous",
            "transposed, reshaped",
        ]


def test_layouts_are_held_against_the_native_one() -> None:
    rows = [
        row
        for group in layouts.SUITE.groups(REQUEST)
        for row in group_rows(group, lambda cell: 3e-5 if cell.variant == "transposed view" else 1e-5)
    ]
    ratios = [
        figure["ratio"]
        for figure in layouts.SUITE.summary(rows)
        if figure["figure"] == "transposed view over (B,L,D) native"
    ]
    assert ratios == pytest.approx([3, 3, 3, 3], rel=0.02)
