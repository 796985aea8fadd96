"""Trained models with another attention: each exchange a line, each way to mend it another, pooled over seeds only."""

import json

import pytest

from eval.report.exchanges import exchanges, originals
from eval.report.readme import regenerated
from eval.report.tables.exchanges import mended_table, surgeries_table
from tests.eval.report.planted import model_rows, quality_row
from tests.eval.rows_factory import MACHINE

DAMAGE = {
    "kl_nats_per_token": 0.5,
    "top1_agreement": 0.75,
    "largest_logit_difference": 3.0,
    "bits_per_byte_before": 2.0,
    "bits_per_byte_after": 3.0,
}
SURGERY = {
    "layers": [0, 2],
    "num_layers": 4,
    "new": {"log_decay": 2},
    "parameters_before": 100,
    "parameters_after": 108,
    "cache": {"before": 64.0, "after": 8.0},
    "damage": DAMAGE,
    "greedy": None,
}


def figure(name, seed, value, *, model, task="language", metric="bits_per_byte", **fields):
    regime = "checkpoint" if model == "small" else "equal_tokens"
    return quality_row(name, seed, value, model=model, task=task, metric=metric, regime=regime, **fields)


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
    document = "<!-- results:exchanges -->\n<!-- /results:exchanges -->\n"
    # On another device than what is timed.
    machine = MACHINE.model_copy(update={"device": "Another Processor"})
    elsewhere = [row.model_copy(update={"machine": machine}) for row in model_rows()]
    text = regenerated(document, [*elsewhere, *rows()], report="docs")
    (line,) = [line for line in text.splitlines() if "`linear`" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:6] == ["small", "`linear`", "0.500", "2.000", "3.000", "2.300"]
    assert cells[6].startswith("0.700 [")
    assert cells[7:] == ["–", "2.800"]
    assert regenerated(document, elsewhere, report="docs") == document


def test_a_document_shows_the_exchanges_of_every_device_and_times_none_of_them():
    machine = MACHINE.model_copy(update={"device": "Another Processor"})
    elsewhere = [row.model_copy(update={"machine": machine}) for row in rows()]
    parts = ("exchanges", "variants")
    document = "".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n" for name in parts)
    text, timed = regenerated(document, [*model_rows(), *rows(), *elsewhere], report="docs").split(
        "<!-- results:variants"
    )
    assert text.count("| small | `linear` |") == 2
    assert text.count("Measured on ") == text.count("Another Processor") + 1 == 2
    untouched = [row for row in rows() if row.quality.task != "surgery"]
    without = regenerated(document, [*model_rows(), *untouched], report="docs")
    assert timed == without.split("<!-- results:variants")[1]


def test_the_tables_have_every_exchange_once_and_the_original_before_what_was_mended():
    looks, mended = surgeries_table(rows()), mended_table(rows())
    assert [line[:3] for line in looks.rows] == [
        ("small", "linear", "2 of 4"),
        ("small", "blocksparse", "refused: None"),
    ]
    assert "log_decay" in looks.rows[0]
    assert [line[1:3] for line in mended.rows] == [("mha", "original"), ("linear", "heal"), ("linear", "scratch")]
    assert mended.rows[1][5].startswith("0.700 [")
    assert mended_table([]).rows == surgeries_table([]).rows == ()
