"""What the figures say is what the rows say: values, gaps, predictions and fronts."""

import re

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from eval.report import FIGURES, ReportFiles
from eval.report.drawing import PALETTE, inline, looks, value_axis
from eval.report.layer_figures import controls, grid_rows, lines_over_length, milliseconds, speedup_cells
from eval.report.model_figures import accuracies, front, mean_cells, mean_curve
from eval.report.quality import RECALL_TASK
from eval.report.trainings import trainings
from eval.rows import Row
from tests.eval.report.planted import quality_rows, recall_row
from tests.eval.rows_factory import changed

KINDS = {kind.name: kind for kind in FIGURES}


def _drawn(name: str, rows: list[Row]) -> Figure:
    drawn = KINDS[name].drawn(rows)
    assert isinstance(drawn, Figure), drawn
    return drawn


def _words(name: str, rows: list[Row]) -> set[str]:
    """Every title and label of a figure."""
    return {text.get_text() for text in _drawn(name, rows).findobj(lambda each: hasattr(each, "get_text"))}


def test_lines_hold_the_rows_medians_and_mark_what_has_none(rows: list[Row]) -> None:
    found = grid_rows(rows, "forward_backward")
    lines = lines_over_length(found, milliseconds)
    # Every setting of parameters is a series of its own.
    assert list(lines) == list(dict.fromkeys(each.cell.variant for each in found))
    assert {"swa(window_size=32)", "swa(window_size=64)", "swa(window_size=128)"} <= set(lines)
    fused = next(each for each in found if each.cell.variant == "mha" and each.cell.length == 512)
    (point,) = (point for point in lines["mha"] if point.x == 512)
    assert (point.value, point.low) == (1e3 * fused.timing.median_seconds, 1e3 * fused.timing.interval_low)
    assert lines["swa_gather_slices(window_size=64)"][-1] == (1024, None, None, None, "skipped", False)
    gaps = [point for point in lines["blocksparse_legacy(block_size=32)"] if point.value is None]
    assert {point.status for point in gaps} == {"incorrect"}
    forward = lines_over_length(grid_rows(rows, "forward"), milliseconds)["mha_tiled"]
    assert [(point.x, point.status) for point in forward if not point.value] == [(1024, "out_of_memory")]


def test_gaps_are_drawn_with_a_key_and_leave_the_axis_to_the_values(report: ReportFiles, rows: list[Row]) -> None:
    (latency,) = (path for path in report.figures if path.stem == "latency")
    svg = latency.read_text(encoding="utf-8")
    told = [f">{status}<" in svg for status in ("skipped", "incorrect", "out of memory", "crashed")]
    assert told == [True, True, True, False]
    slow = [row for row in rows if row.timing is None or row.timing.median_seconds > 0.002]
    for axes in _drawn("latency", slow).axes:
        assert axes.dataLim.intervaly[0] > 1.5


def test_the_heat_map_names_statuses_and_doubts(rows: list[Row]) -> None:
    cells = speedup_cells(grid_rows(rows, "forward"))
    assert cells["blocksparse_legacy(block_size=32)", "128"] == (None, "incorrect")
    slow = cells["swa_gather_slices(window_size=64)", "512"]
    assert slow.value < 0.5
    assert not slow.text.startswith("≈")


def test_controls_are_all_drawn(rows: list[Row]) -> None:
    assert len(controls(rows)) == sum(row.cell is not None and row.cell.role == "control" for row in rows) == 12
    assert any("of 12 intervals contain 1" in text for text in _words("control", rows))


def test_the_front_holds_what_none_beats_in_both() -> None:
    fast, good, beaten, between = (3, 2.5), (1, 2.0), (2, 2.6), (2, 2.2)
    assert front([fast, good, beaten, between], more_is_better=True) == [fast, between, good]
    assert front([fast, good, beaten, between], more_is_better=False) == [good]


def test_a_single_evaluation_is_a_mark_and_no_line_through_one_point(rows: list[Row]) -> None:
    trained = next(row for row in rows if row.quality and row.quality.curve)
    for own, marked in (([changed(trained, curve=trained.quality.curve[:1])], True), (rows, False)):
        lines = [line for axes in _drawn("loss_curves", own).axes for line in axes.lines]
        assert {line.get_marker() != "None" for line in lines} == {marked}


@pytest.mark.parametrize(("values", "ticks"), [((), 0), ((0.0, 5.0), 2), ((16.3, 17.9), 2), ((1.0, 1e6), 2)])
@pytest.mark.parametrize("of_bytes", [False, True])
def test_an_axis_has_ticks_where_it_has_values(of_bytes: bool, values: tuple[float, ...], ticks: int) -> None:
    axes = Figure().subplots()
    axes.plot(values, values, "o")
    for axis in (axes.xaxis, axes.yaxis):
        value_axis(axis, of_bytes=of_bytes)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        assert sum(low <= each <= high for each in axis.get_majorticklocs()) >= ticks
        assert bool(len(axis.get_majorticklocs())) == bool(ticks)


@pytest.mark.parametrize("field", ["model", "variant"])
def test_more_than_a_figure_can_show_is_said_and_not_drawn_for_minutes(field: str) -> None:
    trained = next(row for row in quality_rows(1) if row.quality.curve)
    drawn = KINDS["loss_curves"].drawn([changed(trained, **{field: f"{field} {number}"}) for number in range(1000)])
    assert "more than a figure can show" in drawn


def test_curves_are_means_over_seeds(rows: list[Row]) -> None:
    variants = next(iter(trainings(row.quality for row in rows if row.quality and row.quality.curve).values()))
    seeds = variants["mha"]
    assert sorted(seeds) == [0, 1, 2]
    first = mean_curve(list(seeds.values()), by="tokens")[0]
    firsts = [quality.curve[0].value for quality in seeds.values()]
    assert (first.x, first.low, first.high) == (4096, min(firsts), max(firsts))
    assert first.value == pytest.approx(sum(firsts) / 3)


def test_a_look_is_one_series_alone_and_one_name_has_one_look() -> None:
    names = [f"variant {index}" for index in range(60)]
    assert len({(look["color"], look["marker"]) for look in looks([*names, *names]).values()}) == len(names)


def _luminance(colour: str) -> float:
    red, green, blue = (each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", PALETTE)
@pytest.mark.parametrize("ground", ["#ffffff", "#0f1419"])
def test_colours_stand_out_on_light_and_dark_ground(colour: str, ground: str) -> None:
    darker, lighter = sorted((_luminance(colour), _luminance(ground)))
    assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_recall_is_a_mean_over_seeds_with_its_spread_or_a_status() -> None:
    rows = [recall_row("mha", seed, value, 4) for seed, value in enumerate((0.9, 1.0))]
    rows.append(recall_row("mha", 0, None, 8).model_copy(update={"status": "skipped"}))
    cells = mean_cells(accuracies(rows, RECALL_TASK, "num_pairs"), "variant", "num_pairs")
    assert cells == {("mha", "4"): (pytest.approx(0.95), "0.95 ± 0.07"), ("mha", "8"): (None, "skipped")}


def test_drawings_take_the_pages_colour_and_ids_of_their_own(report: ReportFiles) -> None:
    (control,) = (path for path in report.figures if path.stem == "control")
    svg = control.read_text(encoding="utf-8")
    assert ("currentColor" in svg, "#0a0b0c" in svg, "<dc:date>" in svg) == (True, False, False)
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert ids
    assert all(each.startswith("control-") for each in ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= ids
    assert "prefers-color-scheme: dark" in svg
    assert 'aria-label="A &amp; B"' in inline(svg, "A &amp; B")


def test_recall_is_drawn_of_one_model_on_equal_tokens_whatever_else_was_trained() -> None:
    own = [recall_row("mha", 0, 0.9, 4), recall_row("swa", 0, 0.8, 4)]
    others = [changed(own[0], budget="equal_seconds"), changed(own[0], model="gpt_tiny")]
    assert "gpt_recall on mqar, trained on equal tokens" in _words("recall", [*others, *own])


def test_speeds_are_told_against_the_variant_that_was_there(rows: list[Row]) -> None:
    words = _words("pareto", [row for row in rows if row.cell is None or row.cell.variant != "mha"])
    assert "training speed over mha_manual (×), more is better" in words
    assert "bits per byte of gpt_tiny on stdlib, less is better" in words
