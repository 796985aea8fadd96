"""Trainings are compared like with like, seed by seed; of exchanged models each way of mending stands alone."""

import json

import pytest

from eval.report.readme import regenerated
from eval.report.trainings import exchanges, exchanges_table, mended_table, originals, trainings_table
from eval.rows import Row
from tests.eval.report.planted import model_rows
from tests.eval.rows_factory import altered, changed, quality_row


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
    assert second["difference to the first"] == "one seed tells no difference"
    assert third["difference to the first"] == "–"


def test_models_budgets_and_metrics_are_never_subtracted_from_each_other() -> None:
    rows = [
        *_trained("mha", [2.0, 2.1]),
        *_trained("swa", [5.0, 5.1], model="bert_tiny", task="masked"),
        *_trained("swa", [6.0, 6.1], budget="equal_seconds"),
        *[changed(row, metric="val_accuracy") for row in _trained("swa", [0.5, 0.6])],
    ]
    lines = _lines(rows)
    assert len(lines) == 4
    assert {line["difference to the first"] for line in lines} == {"–"}


def test_other_budgets_are_other_comparisons() -> None:
    longer = [changed(row, tokens=1000) for row in (*_trained("mha", [1.5]), *_trained("linear", [1.6]))]
    lines = _lines([*_trained("mha", [2.0]), *longer])
    assert [line["difference to the first"] for line in lines] == ["–", "–", "one seed tells no difference"]


def test_evaluations_and_single_settings_are_other_tables() -> None:
    rows = [quality_row("mha", 0, 2.0), *[changed(row, length=512) for row in _trained("mha", [2.0])]]
    assert _lines(rows) == []


DAMAGE = {"kl_nats_per_token": 0.5, "bits_per_byte_before": 2.0, "bits_per_byte_after": 3.0}
SURGERY = {"layers": [0, 2], "num_layers": 4, "damage": DAMAGE}
DOCUMENT = "".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n" for name in ("exchanges", "variants"))


def figure(name, seed, value, *, model, task="language", metric="bits_per_byte", **fields):
    budget = "checkpoint" if model == "small" else "equal_tokens"
    return quality_row(name, seed, value, model=model, task=task, metric=metric, budget=budget, **fields)


def rows():
    looks = {"task": "surgery", "metric": "kl_nats_per_token", "model": "small"}
    found = [
        figure("linear", 0, 0.5, **looks, surgery=json.dumps(SURGERY)),
        figure("blocksparse", 0, None, **looks),
        figure("mha", 0, 2.0, model="small"),
    ]
    for seed, value in ((0, 2.2), (1, 2.4)):
        heal = {"model": "small, heal"}
        found += [
            figure("linear", seed, value, **heal),
            figure("linear", seed, value + 0.01, **heal, metric="val_bits_per_byte"),
            figure("linear", seed, 2.9, **heal, task="ablation", metric="bits_per_byte without attention"),
            figure("linear", seed, 0.25, **heal, task="generated_recall", metric="accuracy"),
            figure("linear", seed, 1.0, **heal, task="generated_recall", metric="accuracy", num_pairs=2),
            figure("linear", seed, value + 0.5, model="small, scratch"),
        ]
    return found


def test_shares_come_back_over_seeds_and_arms_are_never_pooled():
    heal, scratch, refused = exchanges(rows())
    assert (heal["arm"], heal["seeds"], scratch["arm"]) == ("heal", 2, "scratch")
    assert heal["recovered_share"] == pytest.approx(0.7)
    assert heal["recovered_share_low"] < 0.6 < 0.8 < heal["recovered_share_high"]
    assert (heal["mean_bits_per_byte_without_attention"], heal["generated_recall"]) == (2.9, 0.25)
    assert scratch["recovered_share"] == pytest.approx(0.2)
    assert (refused["variant"], "surgery" in refused) == ("blocksparse", False)
    (original,) = originals(rows())
    assert (original["variant"], original["mean_bits_per_byte"]) == ("mha", 2.0)


def test_a_document_shows_each_exchange_with_what_its_arms_reached():
    # On another device than what is timed.
    elsewhere = [altered(row, "machine", device="Another Processor") for row in model_rows()]
    text = regenerated(DOCUMENT, [*elsewhere, *rows()], report="docs")
    (line,) = [line for line in text.splitlines() if "| small | `linear`" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:6] == ["small", "`linear`", "0.500", "2.000", "3.000", "2.300"]
    assert cells[6].startswith("0.700 [")
    assert cells[7:] == ["–", "2.800"]
    assert "| small |" not in regenerated(DOCUMENT, elsewhere, report="docs")


def test_a_document_shows_the_exchanges_of_every_device_and_times_none_of_them():
    elsewhere = [altered(row, "machine", device="Another Processor") for row in rows()]
    exchanged, timed = regenerated(DOCUMENT, [*model_rows(), *rows(), *elsewhere], report="docs").split(
        "results:var", 1
    )
    assert exchanged.count("| small | `linear` |") == 2
    assert exchanged.count("Measured on ") == exchanged.count("Another Processor") + 1 == 2
    untouched = [row for row in rows() if row.quality.task != "surgery"]
    assert timed == regenerated(DOCUMENT, [*model_rows(), *untouched], report="docs").split("results:var", 1)[1]


def test_what_broke_alike_is_one_line_and_the_original_stands_before_what_was_mended():
    masked = figure("blocksparse_masked", 0, 0.5, task="surgery", metric="kl_nats_per_token", model="small")
    refused = [row for row in rows() if row.quality.value is None]
    alike = [changed(row, surgery=json.dumps(SURGERY)) for row in (masked, *refused)]
    table = exchanges_table([*alike, *rows()])
    assert [line[:3] for line in table.rows] == [
        ("small", "blocksparse_masked, blocksparse", "0.500"),
        ("small", "linear", "0.500"),
    ]
    mended = mended_table(rows())
    assert [line[1:3] for line in mended.rows] == [("mha", "original"), ("linear", "heal"), ("linear", "scratch")]
    assert mended.records()[1]["recovered share"] == "0.700"
    assert mended_table([]).rows == exchanges_table([]).rows == ()
