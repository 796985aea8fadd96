"""What the figures say is what the rows say: values, gaps, predictions and fronts."""

import re

import pytest
from matplotlib.figure import Figure

from eval.report import ReportFiles
from eval.report.charts import time_lines
from eval.report.drawing import Absent, byte_axis, inline, log_ticks, named_looks, standalone, svg_text
from eval.report.figures import FIGURES
from eval.report.layer_figures import controls, main_rows, speedup_cells
from eval.report.model_figures import Spot, curves, front, mean_cells, mean_curve
from eval.report.quality import Experiment
from eval.rows import Row
from eval.suites.transfer import predictions
from tests.eval.report.planted import SPEEDS, quality_rows, recall_row
from tests.eval.rows_factory import changed

KINDS = {kind.name: kind for kind in FIGURES}


def _texts(figure: Figure) -> str:
    return svg_text(figure, "name")


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_no_rows_give_a_reason_and_no_drawing(kind) -> None:
    drawn = kind.drawn([])
    assert isinstance(drawn, Absent)
    assert drawn.reason


def test_every_parameter_setting_is_a_series_of_its_own(rows: list[Row]) -> None:
    found = main_rows(rows, "forward")
    lines = time_lines(found)
    assert [line.label for line in lines] == list(dict.fromkeys(each.cell.variant for each in found))
    assert {"swa(window_size=32)", "swa(window_size=64)", "swa(window_size=128)"} <= {line.label for line in lines}


def test_lines_hold_the_rows_medians_and_mark_what_has_none(rows: list[Row]) -> None:
    found = main_rows(rows, "forward_backward")
    lines = {line.label: line for line in time_lines(found)}
    fused = next(each for each in found if each.cell.variant == "mha" and each.cell.length == 512)
    (point,) = (point for point in lines["mha"].points if point.x == 512)
    assert point.value == 1e3 * fused.timing.median_seconds
    assert point.low == 1e3 * fused.timing.interval_low
    assert lines["swa_gather_slices(window_size=64)"].gaps == {1024: "skipped"}
    assert lines["blocksparse_legacy(block_size=32)"].points == ()
    assert set(lines["blocksparse_legacy(block_size=32)"].gaps.values()) == {"incorrect"}
    lines = {line.label: line for line in time_lines(main_rows(rows, "forward"))}
    assert lines["mha_tiled"].gaps == {1024: "out_of_memory"}


def test_gaps_are_drawn_with_a_key(report: ReportFiles) -> None:
    (latency,) = (path for path in report.figures if path.stem == "latency")
    svg = latency.read_text(encoding="utf-8")
    for status in ("skipped", "incorrect", "out of memory"):
        assert f">{status}<" in svg
    assert ">crashed<" not in svg


def test_the_heat_map_names_statuses_and_doubts(rows: list[Row]) -> None:
    cells = speedup_cells(main_rows(rows, "forward"))
    assert cells["blocksparse_legacy(block_size=32)", "128"].text == "incorrect"
    assert cells["blocksparse_legacy(block_size=32)", "128"].value is None
    slow = cells["swa_gather_slices(window_size=64)", "512"]
    assert slow.value < 0.5
    assert not slow.text.startswith("≈")
    assert cells["mha_manual", "512"].value == pytest.approx(1)


def test_amdahls_prediction_is_one_where_the_op_is_as_fast(rows: list[Row]) -> None:
    found = predictions(rows)
    assert {each.model for each in found} == {"gpt_tiny", "llama_tiny"}
    for each in found:
        # The planted op takes SPEEDS of the baseline's time: 1 - s + s r.
        ratio = SPEEDS[each.variant]
        assert each.predicted == pytest.approx(1 - each.share + each.share * ratio, rel=0.02)
        assert each.measured.value == pytest.approx(0.6 + 0.4 * ratio, rel=0.03)
        assert 0 < each.share < 1


def test_controls_are_all_drawn(rows: list[Row]) -> None:
    found = controls(rows)
    assert len(found) == sum(row.cell is not None and row.cell.role == "control" for row in rows) == 12
    drawn = KINDS["control"].drawn(rows)
    assert isinstance(drawn, Figure)
    assert "of 12 intervals contain 1" in _texts(drawn)


def _spot(name: str, x: float, y: float) -> Spot:
    return Spot(name=name, x=x, y=y)


def test_the_front_holds_what_none_beats_in_both() -> None:
    spots = [_spot("fast", 3, 2.5), _spot("good", 1, 2.0), _spot("beaten", 2, 2.6), _spot("between", 2, 2.2)]
    assert [spot.name for spot in front(spots, more_is_better=True)] == ["fast", "between", "good"]
    assert [spot.name for spot in front(spots, more_is_better=False)] == ["good"]


def test_a_single_evaluation_is_a_mark_and_no_line_through_one_point(rows: list[Row]) -> None:
    trained = [row.quality for row in rows if row.quality and row.quality.curve]
    once = [changed(row, curve=row.quality.curve[:1]) for row in rows if row.quality in trained[:1]]
    for own, marked in ((once, True), (rows, False)):
        drawn = KINDS["loss_curves"].drawn(own)
        assert isinstance(drawn, Figure)
        lines = [line for axes in drawn.axes for line in axes.lines]
        assert {line.get_marker() != "None" for line in lines} == {marked}


@pytest.mark.parametrize(("values", "ticks"), [((), 0), ((0.0, 5.0), 2), ((16.3, 17.9), 2), ((1.0, 1e6), 2)])
@pytest.mark.parametrize("make", [log_ticks, byte_axis])
def test_an_axis_has_ticks_where_it_has_values(make, values: tuple[float, ...], ticks: int) -> None:
    axes = Figure().subplots()
    axes.plot(values, values, "o")
    for which in ("x", "y"):
        make(axes, which)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        assert sum(low <= each <= high for each in axis.get_majorticklocs()) >= ticks
        assert bool(len(axis.get_majorticklocs())) == bool(ticks)


@pytest.mark.parametrize("field", ["model", "variant"])
def test_more_than_a_figure_can_show_is_said_and_not_drawn_for_minutes(field: str) -> None:
    (trained, *_) = [row for row in quality_rows(1) if row.quality and row.quality.curve]
    drawn = KINDS["loss_curves"].drawn([changed(trained, **{field: f"{field} {number}"}) for number in range(1000)])
    assert isinstance(drawn, Absent)
    assert "more than a figure can show" in drawn.reason


def test_curves_are_means_over_seeds(rows: list[Row]) -> None:
    seeds = curves(rows)[Experiment(model="gpt_tiny", data="stdlib"), "bits_per_byte", "equal_tokens", (None, None)][
        "mha"
    ]
    assert sorted(seeds) == [0, 1, 2]
    by_tokens = mean_curve(list(seeds.values()), by="tokens")
    firsts = [quality.curve[0].value for quality in seeds.values()]
    assert by_tokens[0][0] == 4096
    assert by_tokens[0][1] == pytest.approx(sum(firsts) / 3)
    assert by_tokens[0][2:] == (min(firsts), max(firsts))


def test_a_look_is_one_series_alone_and_one_name_has_one_look() -> None:
    names = [f"variant {index}" for index in range(60)]
    looks = named_looks([*names, *names])
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(names)


def test_recall_is_a_mean_over_seeds_with_its_spread_or_a_status() -> None:
    rows = [recall_row("mha", seed, value, 4) for seed, value in enumerate((0.9, 1.0))]
    rows.append(recall_row("mha", 0, None, 8).model_copy(update={"status": "skipped", "reason": "too long"}))
    cells = mean_cells([(row, row.quality) for row in rows], "variant", "num_pairs")
    assert cells["mha", "4"].value == pytest.approx(0.95)
    assert cells["mha", "4"].text == "0.95 ± 0.07"
    assert (cells["mha", "8"].value, cells["mha", "8"].text) == (None, "skipped")


def test_drawings_take_the_pages_colour_and_ids_of_their_own(rows: list[Row]) -> None:
    drawn = KINDS["control"].drawn(rows)
    assert isinstance(drawn, Figure)
    svg = svg_text(drawn, "control")
    assert "currentColor" in svg
    assert "#0a0b0c" not in svg
    assert "<dc:date>" not in svg
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert ids
    assert all(each.startswith("control-") for each in ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used <= ids
    assert "prefers-color-scheme: dark" in standalone(svg)
    assert 'aria-label="A &amp; B"' in inline(svg, "A &amp; B")


def test_recall_is_drawn_of_one_model_on_equal_tokens_whatever_else_was_trained() -> None:
    own = [recall_row("mha", 0, 0.9, 4), recall_row("swa", 0, 0.8, 4)]
    others = [changed(own[0], budget="equal_seconds"), changed(own[0], model="gpt_tiny")]
    drawn = KINDS["recall"].drawn([*others, *own])
    assert isinstance(drawn, Figure)
    assert "gpt_recall on mqar, trained on equal tokens" in _texts(drawn)


def test_speeds_are_told_against_the_variant_that_was_there(rows: list[Row]) -> None:
    without = [row for row in rows if row.cell is None or row.cell.variant != "mha"]
    drawn = KINDS["pareto"].drawn(without)
    assert isinstance(drawn, Figure)
    svg = _texts(drawn)
    assert "training speed over mha_manual (×)" in svg
    assert "bits per byte of gpt_tiny on stdlib" in svg
