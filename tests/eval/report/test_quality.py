"""The quality beside a speed is that of the same function, over its own seeds."""

import json

import pytest

from eval.report.model_figures import accuracies, mean_cells
from eval.report.quality import RECALL_TASK, OverSeeds, comparable, measured_quality, over_seeds, overall, reached_by
from eval.report.trainings import named_comparisons, trainings, trainings_table
from eval.rows import Row
from tests.eval.report.planted import recall_row
from tests.eval.rows_factory import attention, changed, quality_row


def text(rows: list[Row], name: str, mapping: str | None = None, *, model: str | None = None) -> OverSeeds | None:
    return reached_by(name, mapping, comparable(overall(rows, "bits_per_byte", "language"), model=model))


def recall(rows: list[Row], name: str) -> OverSeeds | None:
    return reached_by(name, None, comparable(overall(rows, "accuracy", RECALL_TASK)))


def recalled(name: str, value: float, **fields: object) -> Row:
    return changed(recall_row(name, 0, value), **fields)


def test_the_mean_is_over_seeds_and_an_evaluation_counts_before_the_trainings_own_value() -> None:
    rows = [quality_row("mha", seed, value) for seed, value in enumerate((2.0, 2.2))]
    rows.append(quality_row("mha", 0, 9.0, metric="val_bits_per_byte"))
    for each in (rows, rows[::-1]):
        found = over_seeds(measured_quality(each))
        assert str(found) == str(text(each, "mha")) == "2.100 ± 0.141 (n=2)"


def test_another_implementation_of_the_same_function_lends_its_quality_and_is_named() -> None:
    rows = [quality_row("mha", seed, 2.0) for seed in range(3)]
    assert str(text(rows, "mha_manual", attention("mha_manual"))) == "2.000 ± 0.000 (n=3), as mha"
    assert text(rows, "swa", attention("swa")) is text(rows, "mqa", attention("mqa")) is None


ALONE = quality_row("mha", 0, 3.0, budget="checkpoint")
# What else was measured, of which nothing may change what full attention reached.
OTHERS = {
    "values of bins and of other tasks are not the whole": [
        *(quality_row("mha", 0, 5.0, position=64), quality_row("mha", 0, 6.0, length=512)),
        recalled("mha", 0.5, num_pairs=32),
    ],
    "equal seconds and checkpoints never pass for equal tokens": [
        *(ALONE, quality_row("mha", 0, 9.0, budget="equal_seconds")),
        recalled("mha", 0.1, budget="equal_seconds"),
    ],
    "other models and other data lend nothing": [
        *(quality_row("swa", 0, 2.0), quality_row("mha", 0, 5.0, data="notes")),
        quality_row("linear", 0, 6.0, model="llama_tiny"),
        *(recalled("swa", 0.9), recalled("mha", 0.2, model="gpt_tiny"), recalled("mha", 0.3, data="mqar_long")),
    ],
    "equal tokens are equal, and those of most variants count": [
        *(quality_row(name, 0, 2.0, tokens=100) for name in ("mha", "swa", "mqa", "sinks")),
        *(quality_row(name, 0, 1.5, tokens=1000) for name in ("mha", "linear")),
    ],
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_variants_figure_is_that_of_the_comparison_of_most_variants(case: str) -> None:
    rows = [quality_row("mha", 0, 2.0), recall_row("mha", 0, 0.9), *OTHERS[case]]
    for each in (rows, rows[::-1]):
        assert (str(text(each, "mha")), str(recall(each, "mha"))) == ("2.000 (n=1)", "0.900 (n=1)")
        assert text(each, "linear") is recall(each, "linear") is None


def test_a_checkpoint_counts_where_no_comparison_was_made_and_says_so_and_equal_seconds_never_do() -> None:
    assert str(text([ALONE], "mha")) == "3.000 (n=1), checkpoint"
    assert recall([recalled("mha", 0.9, budget="equal_seconds")], "mha") is None


def test_the_figures_of_a_model_are_its_own() -> None:
    rows = [quality_row("mha", 0, 2.0), quality_row("swa", 0, 2.0), quality_row("linear", 0, 6.0, model="llama_tiny")]
    assert str(text(rows, "linear", model="llama_tiny")) == "6.000 (n=1)"
    assert text(rows, "mha", model="gpt_small") is None


def test_a_figure_holds_one_model_data_and_budget() -> None:
    rows = [recall_row("mha", 0, 0.9, 4), recall_row("swa", 0, 0.8, 4)]
    apart: tuple[dict[str, object], ...] = ({"budget": "equal_seconds"}, {"model": "gpt_tiny"}, {"data": "x"})
    others, alone = [changed(rows[0], **field) for field in apart], changed(rows[0], budget="checkpoint")
    assert comparable(measured_quality([*others, alone, *rows])) == measured_quality([alone, *rows])
    assert [row for row, _ in accuracies([*others, alone, *rows], RECALL_TASK, "num_pairs")] == measured_quality(rows)
    assert comparable(measured_quality([others[0], alone])) == measured_quality([alone])
    assert comparable([]) == []


def settings(**training: object) -> str:
    return json.dumps({"optimizer": {"lr": training.pop("lr", 0.1)}, "training": training}, sort_keys=True)


# Two trainings that no report may take for two seeds of one.
APART = (
    ({"trained_on": "a" * 64}, {"trained_on": "b" * 64}),
    ({"measured_on": "a" * 64}, {"measured_on": "b" * 64}),
    ({"settings": settings(lr=0.1)}, {"settings": settings(lr=0.2)}),
    ({"settings": settings(batch_size=2)}, {"settings": settings(batch_size=4)}),
    ({"settings": settings()}, {"settings": None}),
    ({"trained_on": "a" * 64}, {"trained_on": None}),
)


@pytest.mark.parametrize("budget", ["equal_tokens", "equal_seconds", "checkpoint"])
@pytest.mark.parametrize("apart", APART, ids=str)
def test_trainings_on_other_data_or_with_other_settings_are_no_seeds_of_one(apart, budget) -> None:
    own = zip((0, 1, 2), (6.0, 6.2, 9.0), (apart[0], apart[0], apart[1]), strict=True)
    rows = [
        quality_row("mha", seed, value, budget=budget, metric="val_bits_per_byte", **facts)
        for seed, value, facts in own
    ]
    told = {"6.100 ± 0.141 (n=2)", "9.000 (n=1)"}
    for each in (rows, rows[::-1]):
        lines = trainings_table(each).lines
        assert {line["held-out value"] for line in lines} == told
        # No two of them look alike.
        assert len({(line["model and data"], line["variant"]) for line in lines}) == 2
        shown = text([changed(row, metric="bits_per_byte") for row in each], "mha")
        assert shown is None or str(shown).removesuffix(", checkpoint") in told


@pytest.mark.parametrize("apart", APART, ids=str)
def test_recall_of_other_trainings_is_not_pooled_either(apart) -> None:
    rows = [changed(recall_row("mha", seed, 0.5 + seed / 4, 4), **facts) for seed, facts in enumerate(apart)]
    (cell,) = mean_cells(accuracies(rows, RECALL_TASK, "num_pairs"), "variant", "num_pairs").values()
    assert cell.text in ("0.50", "0.75")


def test_seeds_of_one_training_are_pooled_and_two_checkpoints_of_one_run_are_not() -> None:
    facts = {"trained_on": "a" * 64, "settings": settings(steps=9), "budget": "checkpoint"}
    rows = [quality_row("mha", seed, 2.0 + seed / 10, steps=9, **facts) for seed in (0, 1)]
    earlier = quality_row("mha", 2, 5.0, steps=4, **facts)
    for each in ([*rows, earlier], [earlier, *rows]):
        assert str(text(each, "mha")).startswith("2.050 ± 0.071 (n=2)")
    # By their time each ends after another number of steps.
    facts["settings"] = settings(steps=9, max_seconds=3.0)
    assert "(n=2)" in str(text([quality_row("mha", seed, 2.0, steps=4 + seed, **facts) for seed in (0, 1)], "mha"))


def test_at_equal_seconds_variants_are_compared_though_their_steps_differ() -> None:
    own = {"metric": "val_bits_per_byte", "budget": "equal_seconds"}
    rows = [
        quality_row(name, seed, 2.0, **own, settings=settings(steps=steps), steps=steps)
        for name, steps in (("mha", 9), ("swa", 13))
        for seed in range(2)
    ]
    (variants,) = trainings(measured_quality(rows)).values()
    assert {name: len(seeds) for name, seeds in variants.items()} == {"mha": 2, "swa": 2}


def test_comparisons_of_one_name_are_told_apart_by_what_differs() -> None:
    asked = ((0.1, "a"), (0.2, "a"), (0.1, "b"))
    rows = [
        quality_row("mha", 0, 2.0, metric="val_loss", settings=settings(lr=lr), trained_on=text * 64)
        for lr, text in asked
    ]
    names = list(named_comparisons(trainings(measured_quality(rows))).values())
    assert names == [f"gpt_tiny on stdlib, trained on {text * 8}, optimizer.lr {lr}" for lr, text in asked]
    alone = named_comparisons(trainings(measured_quality(rows[:1])))
    assert list(alone.values()) == ["gpt_tiny on stdlib"]
