"""The table of trainings compares like with like, seed by seed."""

from eval.report.tables.trainings import trainings_table
from eval.rows import Row
from tests.eval.report.planted import changed, quality_row


def _trained(name: str, values: list[float], **fields: object) -> list[Row]:
    return [quality_row(name, seed, value, metric="val_bits_per_byte", **fields) for seed, value in enumerate(values)]


def _lines(rows: list[Row]) -> list[dict[str, str]]:
    table = trainings_table(rows)
    return [dict(zip(table.columns, line, strict=True)) for line in table.rows]


def test_a_difference_is_paired_by_seed() -> None:
    first, second = _lines([*_trained("mha", [2.0, 3.0, 4.0]), *_trained("swa", [2.1, 3.1, 4.1])])
    assert (first["variant"], first["difference to the first"]) == ("mha", "–")
    assert second["held-out value"] == "3.100 ± 1.000 (n=3)"
    assert second["difference to the first"] == "+0.100 [+0.100, +0.100]"


def test_a_figure_of_a_part_of_the_held_out_data_says_of_which() -> None:
    limited = _trained("mha", [2.0], settings='{"training": {"eval_batches": 8}}')
    whole = _trained("mha", [2.0], settings='{"training": {"eval_batches": null}}')
    assert [line["figure"] for line in _lines(limited)] == ["bits per byte of at most 8 batches"]
    assert [line["figure"] for line in _lines(whole)] == ["bits per byte"]
    assert _lines(_trained("mha", [2.0], settings='{"training": {"eval_batches": [8]}}'))


def test_only_seeds_that_both_had_are_subtracted() -> None:
    alone = [changed(row, seed=9) for row in _trained("linear", [5.0])]
    _, second, third = _lines([*_trained("mha", [2.0, 3.0]), *_trained("swa", [1.5]), *alone])
    assert second["difference to the first"] == "-0.500"
    assert third["difference to the first"] == "–"


def test_models_regimes_and_metrics_are_never_subtracted_from_each_other() -> None:
    rows = [
        *_trained("mha", [2.0, 2.1]),
        *_trained("swa", [5.0, 5.1], model="bert_tiny", task="masked"),
        *_trained("swa", [6.0, 6.1], regime="equal_seconds"),
        *[changed(row, metric="val_accuracy") for row in _trained("swa", [0.5, 0.6])],
    ]
    lines = _lines(rows)
    assert len(lines) == 4
    assert {line["difference to the first"] for line in lines} == {"–"}


def test_other_budgets_are_other_comparisons() -> None:
    longer = [changed(row, tokens=1000) for row in (*_trained("mha", [1.5]), *_trained("linear", [1.6]))]
    lines = _lines([*_trained("mha", [2.0]), *longer])
    assert [line["difference to the first"] for line in lines] == ["–", "–", "+0.100"]


def test_evaluations_and_single_settings_are_other_tables() -> None:
    rows = [quality_row("mha", 0, 2.0), *[changed(row, length=512) for row in _trained("mha", [2.0])]]
    assert _lines(rows) == []
