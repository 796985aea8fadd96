"""A variant's line tells its speed by paired ratios, and its quality by what the trainings can tell apart."""

import pytest

from eval.query import Measured, measured
from eval.report.variants import Variants, same_by_heads, variants_table
from eval.rows import Row
from eval.statistics import paired_ratio
from tests.eval.report.planted import recall_row
from tests.eval.rows_factory import changed, quality_row


def test_the_speed_over_mha_is_the_paired_ratio_of_the_training_steps(rows: list[Row]) -> None:
    variants = Variants(rows)
    facts = {each.name: each for each in variants.facts}
    steps = {each.cell.variant: each for each in variants.steps}
    assert facts["swa"].speed == paired_ratio(steps["mha"].samples, steps["swa"].samples)
    assert facts["swa"].speed.value > 1 == facts["mha"].speed.value
    assert list(facts) == sorted(facts, key=lambda name: steps[name].timing.median_seconds)
    # Decoding is of the same model, with its interval the right way round.
    assert {each.cell.model for each in variants.decoding} == {variants.steps[0].cell.model}
    decoding = facts["mqa"].decoding
    assert decoding.low < decoding.value < decoding.high


def test_variants_that_were_only_trained_have_a_line_too() -> None:
    table = variants_table([quality_row("swa", 0, 2.0)])
    assert [line["variant"] for line in table.lines] == ["swa"]
    assert "No training or decoding steps" in table.note


def test_the_steps_shown_are_those_of_a_model_whose_quality_is_known(rows: list[Row]) -> None:
    quality = [changed(row, model="llama_tiny") for row in rows if row.quality and row.quality.task == "language"]
    table = variants_table([*(row for row in rows if row.cell), *quality])
    assert "Training steps of llama_tiny" in table.note
    assert "Bits per byte: of llama_tiny on stdlib" in table.note
    untrained = variants_table([row for row in rows if row.cell or (row.quality and row.quality.task == "mqar")])
    assert {line["bits per byte"] for line in untrained.lines} == {"–"}
    assert "was not trained on text; recall: of gpt_recall on mqar" in untrained.note


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((2.1, 2.3, 2.5), "+0.100 [+0.100, +0.100]"),
        ((1.9, 2.3, 2.4), "no difference found (± 0.248)"),
        ((2.1,), "one seed tells no difference"),
    ],
)
def test_quality_is_told_as_a_difference_only_where_the_seeds_tell_one(values: tuple[float, ...], told: str) -> None:
    found = [quality_row("mha", seed, value) for seed, value in enumerate((2.0, 2.2, 2.4))]
    found += [quality_row("linear", seed, value) for seed, value in enumerate(values)]
    found += [recall_row("mha", 0, 1.0), quality_row("swa", 9, 3.0)]
    lines = {line["variant"]: (line["bits per byte"], line["recall"]) for line in variants_table(found).lines}
    # Without a seed in common there is nothing to compare.
    expected = {"mha": ("2.200 ± 0.200 (n=3)", "1.000 (n=1)"), "linear": (told, "–"), "swa": ("3.000 (n=1)", "–")}
    assert lines == expected


def test_full_attention_is_grouped_attention_where_the_model_shares_its_heads(rows: list[Row]) -> None:
    told = []
    for model, kv_heads in (("llama_tiny", 1), ("gpt_tiny", 4)):
        own = {"model": model, "num_heads": 4, "num_kv_heads": kv_heads}
        steps = measured(rows, level="model", mode="step")
        told += same_by_heads(Measured(row=each.row, cell=each.cell.model_copy(update=own)) for each in steps)
    assert told == ["In llama_tiny 4 heads share 1 heads of keys and values: mha and mqa are one function there."]
