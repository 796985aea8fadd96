"""Tables count every row, tell speeds by paired ratios, and say where a figure is from."""

from eval.report.tables.coverage import commits, coverage_table, machines_table, reasons_table
from eval.report.tables.suites import suite_sections
from eval.report.tables.table import Table
from eval.report.tables.variants import setting_of, variant_facts, variants_table
from eval.rows import Row
from eval.statistics.ratios import paired_ratio
from tests.eval.report.planted import changed, quality_row
from tests.eval.rows.made import skipped, speed


def test_coverage_counts_every_row(rows: list[Row]) -> None:
    table = coverage_table(rows)
    total = dict(zip(table.columns, table.rows[-1], strict=True))
    assert total["suite"] == "all"
    assert int(total["rows"]) == len(rows)
    assert sum(int(total[name]) for name in table.columns[2:]) == len(rows)
    assert int(total["skipped"]) == sum(row.status == "skipped" for row in rows)


def test_reasons_are_counted() -> None:
    table = reasons_table([speed(1), skipped(2), skipped(3)])
    assert table.rows == (("skipped", "2", "128 MiB do not fit"),)


def test_the_speed_over_mha_is_the_paired_ratio_of_the_training_steps(rows: list[Row]) -> None:
    facts = {each.name: each for each in variant_facts(rows)}
    steps = {each.cell.variant: each for each in setting_of(rows).step}
    expected = paired_ratio(steps["mha"].samples, steps["swa"].samples)
    assert facts["swa"].speed == expected
    assert facts["swa"].speed.ratio > 1
    assert facts["mha"].speed.ratio == 1
    median = steps["swa"].timing.median_seconds
    assert facts["swa"].tokens_per_second == 128 / median


def test_decoding_is_of_the_same_model_with_its_interval_the_right_way_round(rows: list[Row]) -> None:
    setting = setting_of(rows)
    assert {each.cell.model for each in setting.decode} == {setting.step[0].cell.model}
    value, low, high = next(each for each in variant_facts(rows) if each.name == "mqa").decoding
    assert low < value < high


def test_variants_that_were_only_trained_have_a_line_too() -> None:
    table = variants_table([quality_row("swa", 0, 2.0)])
    assert [line[0] for line in table.rows] == ["swa"]
    assert "No training or decoding steps" in table.note


def test_every_group_of_every_suite_is_a_table(rows: list[Row]) -> None:
    sections = {section.name: section for section in suite_sections(rows)}
    assert list(sections) == ["attnbench", "transfer", "decode", "long"]
    for name, section in sections.items():
        groups = {row.cell.group for row in rows if row.cell is not None and row.cell.suite == name}
        assert set(section.groups) == groups
    line = next(iter(sections["attnbench"].groups.values())).rows[0]
    assert line[0] == "mha_manual"
    assert "2.0" in line[-3]


def test_another_function_than_the_baselines_is_marked(rows: list[Row]) -> None:
    row = next(row for row in rows if row.comparison is not None and row.cell.variant == "linear")
    other = row.model_copy(update={"comparison": row.comparison.model_copy(update={"same_function": False})})
    (section,) = suite_sections([other])
    (table,) = section.groups.values()
    assert table.rows[0][2].endswith("≠ over mha_manual")


def test_commits_tell_of_changes_that_were_not_committed() -> None:
    row = speed(1)
    dirty = row.model_copy(update={"machine": row.machine.model_copy(update={"uncommitted_changes": True})})
    assert commits([row, dirty]) == "0123456789, 0123456789 + changes"
    assert len(machines_table([row, dirty]).columns) == 3


def test_markdown_survives_what_would_break_its_columns() -> None:
    table = Table(columns=("a", "b"), rows=(("x|y", "two\nlines"),))
    assert table.markdown().splitlines()[-1] == "| x\\|y | two lines |"


def test_quality_of_a_layers_row_is_said_to_be_a_models_and_another_models_row_has_none(rows: list[Row]) -> None:
    sections = {section.name: section for section in suite_sections(rows)}
    for table in sections["attnbench"].groups.values():
        assert "bits per byte of gpt_tiny trained with it" in table.columns
        assert "of gpt_tiny on stdlib" in table.note
    (untrained,) = (table for name, table in sections["transfer"].groups.items() if name.startswith("model step llama"))
    assert untrained.columns[-3] == "bits per byte"
    assert {line[-3] for line in untrained.rows} == {"–"}
    assert "llama_tiny was not trained on text" in untrained.note


def test_the_steps_shown_are_those_of_a_model_whose_quality_is_known(rows: list[Row]) -> None:
    quality = [changed(row, model="llama_tiny") for row in rows if row.quality and row.quality.task == "language"]
    table = variants_table([*(row for row in rows if row.cell), *quality])
    assert "Training steps of llama_tiny" in table.note
    assert "Bits per byte: of llama_tiny on stdlib" in table.note
    untrained = variants_table([row for row in rows if row.cell or (row.quality and row.quality.task == "mqar")])
    assert {line[-3] for line in untrained.rows} == {"–"}
    assert "was not trained on text; recall: of gpt_recall on mqar" in untrained.note
