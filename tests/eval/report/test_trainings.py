"""Trainings are compared like with like, seed by seed; of exchanged models each way of mending stands alone."""

import json

import pytest

from eval.report.readme import regenerated
from eval.report.trainings import exchanges, exchanges_table, mended_table, trainings_table
from eval.rows import Row
from tests.eval.report.planted import model_rows
from tests.eval.rows_factory import altered, changed, quality_row


def trained(name: str, *values: float, **fields: object) -> list[Row]:
    return [quality_row(name, seed, value, metric="val_bits_per_byte", **fields) for seed, value in enumerate(values)]


NONE, ONE_SEED = "–", "one seed tells no difference"
# Trainings -> the difference to the first of each.
DIFFERENCES = {
    "paired by seed": (
        [*trained("mha", 2.0, 3.0, 4.0), *trained("swa", 2.1, 3.1, 4.1)],
        [NONE, "+0.100 [+0.100, +0.100]"],
    ),
    "only seeds that both had": (
        [*trained("mha", 2.0, 3.0), *trained("swa", 1.5), quality_row("linear", 9, 5.0, metric="val_bits_per_byte")],
        [NONE, ONE_SEED, NONE],
    ),
    "models, budgets and metrics are never subtracted from each other": (
        [
            *trained("mha", 2.0, 2.1),
            *trained("swa", 5.0, 5.1, model="bert_tiny", task="masked"),
            *trained("swa", 6.0, 6.1, budget="equal_seconds"),
            *[changed(row, metric="val_accuracy") for row in trained("swa", 0.5, 0.6)],
        ],
        [NONE] * 4,
    ),
    "other budgets are other comparisons": (
        [*trained("mha", 2.0), *trained("mha", 1.5, tokens=1000), *trained("linear", 1.6, tokens=1000)],
        [NONE, NONE, ONE_SEED],
    ),
    "evaluations and single settings are other tables": (
        [quality_row("mha", 0, 2.0), *trained("mha", 2.0, length=512)],
        [],
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_to_the_first_of_its_kind(case: str) -> None:
    rows, differences = DIFFERENCES[case]
    assert [line["difference to the first"] for line in trainings_table(rows).lines] == differences


@pytest.mark.parametrize(("limit", "told"), [("8", " of at most 8 batches"), ("null", ""), ("[8]", "")])
def test_a_figure_of_a_part_of_the_held_out_data_says_of_which(limit: str, told: str) -> None:
    (line,) = trainings_table(trained("mha", 2.0, settings=f'{{"training": {{"eval_batches": {limit}}}}}')).lines
    assert line["figure"] == f"bits per byte{told}"


DAMAGE = {"kl_nats_per_token": 0.5, "bits_per_byte_before": 2.0, "bits_per_byte_after": 3.0}
SURGERY = json.dumps({"layers": [0, 2], "num_layers": 4, "damage": DAMAGE})
DOCUMENT = "".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n" for name in ("exchanges", "variants"))


def exchanged(name: str, **fields: object) -> Row:
    own = {"task": "surgery", "metric": "kl_nats_per_token", "model": "small", "budget": "checkpoint"}
    return quality_row(name, 0, None if not fields else 0.5, **own, **fields)


@pytest.fixture(scope="module")
def mended() -> list[Row]:
    """One exchange that was mended in two ways by two seeds each, one that was refused, and the original."""
    rows = [
        exchanged("linear", surgery=SURGERY),
        exchanged("blocksparse"),
        quality_row("mha", 0, 2.0, model="small", budget="checkpoint"),
    ]
    for seed, value in ((0, 2.2), (1, 2.4)):
        figures = [
            quality_row("linear", seed, value),
            quality_row("linear", seed, value + 0.01, metric="val_bits_per_byte"),
            quality_row("linear", seed, 2.9, task="ablation", metric="bits_per_byte without attention"),
            quality_row("linear", seed, 0.25, task="generated_recall", metric="accuracy"),
            quality_row("linear", seed, 1.0, task="generated_recall", metric="accuracy", num_pairs=2),
        ]
        rows += [changed(row, model="small, heal") for row in figures]
        rows.append(quality_row("linear", seed, value + 0.5, model="small, scratch"))
    return rows


def test_shares_come_back_over_seeds_and_arms_are_never_pooled(mended: list[Row]) -> None:
    heal, scratch, refused = exchanges(mended)
    assert (heal["arm"], heal["seeds"], scratch["arm"]) == ("heal", 2, "scratch")
    assert heal["recovered_share"] == pytest.approx(0.7)
    assert heal["recovered_share_low"] < 0.6 < 0.8 < heal["recovered_share_high"]
    assert (heal["mean_bits_per_byte_without_attention"], heal["generated_recall"]) == (2.9, 0.25)
    assert scratch["recovered_share"] == pytest.approx(0.2)
    assert (refused["variant"], "surgery" in refused) == ("blocksparse", False)


def test_what_broke_alike_is_one_line_and_the_original_stands_before_what_was_mended(mended: list[Row]) -> None:
    alike = [exchanged(name, surgery=SURGERY) for name in ("blocksparse_masked", "blocksparse")]
    kept = [row for row in mended if row.quality.variant != "blocksparse"]
    told = [(line["model"], line["variant"], line["KL nats/token"]) for line in exchanges_table([*alike, *kept]).lines]
    assert told == [("small", "blocksparse_masked, blocksparse", "0.500"), ("small", "linear", "0.500")]
    original, heal, scratch = mended_table(mended).lines
    assert [line["arm"] for line in (original, heal, scratch)] == ["original", "heal", "scratch"]
    assert (original["variant"], original["mean bits per byte"]) == ("mha", "2.00")
    assert heal["recovered share"] == "0.700"
    assert mended_table([]).lines == exchanges_table([]).lines == []


def test_a_document_shows_the_exchanges_of_every_device_with_what_their_arms_reached(mended: list[Row]) -> None:
    elsewhere = [altered(row, "machine", device="Another Processor") for row in mended]
    rows = [*model_rows(), *mended, *elsewhere]
    told, timed = regenerated(DOCUMENT, rows, report="docs").split("results:variants", 1)
    lines = [line for line in told.splitlines() if "| small | `linear` |" in line]
    assert len(lines) == 2
    cells = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    assert cells[:6] == ["small", "`linear`", "0.500", "2.000", "3.000", "2.300"]
    assert cells[6].startswith("0.700 [")
    assert cells[7:] == ["–", "2.800"]
    assert told.count("Measured on ") == told.count("Another Processor") + 1 == 2
    # None of them is timed.
    untouched = [row for row in rows if row.quality is None or row.quality.task != "surgery"]
    assert timed == regenerated(DOCUMENT, untouched, report="docs").split("results:variants", 1)[1]
    assert "| small |" not in regenerated(DOCUMENT, model_rows(), report="docs")
