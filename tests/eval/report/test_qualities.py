"""The quality beside a speed is that of the same function, over its own seeds."""

import json

import pytest

from eval.report.qualities import QualityBook, function_of, of_main_subject, qualities
from tests.eval.report.planted import attention, changed, quality_row, recall_row


def test_the_mean_is_over_seeds_and_an_evaluation_counts_before_the_trainings_own_value() -> None:
    rows = [quality_row("mha", seed, value) for seed, value in enumerate((2.0, 2.2))]
    rows.append(quality_row("mha", 0, 9.0, metric="val_bits_per_byte"))
    found = QualityBook(rows).bits_per_byte("mha", attention("mha"))
    assert found is not None
    assert found.mean == pytest.approx(2.1)
    assert found.spread == pytest.approx(0.1414, abs=1e-3)
    assert found.num_seeds == 2


def test_one_seed_has_no_spread() -> None:
    found = QualityBook([quality_row("mha", 0, 2.0)]).bits_per_byte("mha", None)
    assert found is not None
    assert found.spread is None
    assert str(found) == "2.000 (n=1)"


def test_another_implementation_of_the_same_function_lends_its_quality_and_is_named() -> None:
    book = QualityBook([quality_row("mha", seed, 2.0) for seed in range(3)])
    found = book.bits_per_byte("mha_manual", attention("mha_manual"))
    assert found is not None
    assert (found.of, found.num_seeds) == ("mha", 3)
    assert book.bits_per_byte("swa", attention("swa")) is None
    assert function_of(attention("mha")) != function_of(attention("mqa"))


def test_adaptive_attention_is_the_function_that_it_chooses_for_and_no_other() -> None:
    assert function_of(attention("adaptive")) == function_of(attention("mha"))
    chosen = {**json.loads(attention("adaptive")), "of": "sliding_window", "parameters": {"window_size": 64}}
    assert function_of(json.dumps(chosen)) == function_of(attention("swa"))
    crossing = {**json.loads(attention("adaptive")), "allow_mechanisms": ["sliding_window"]}
    assert function_of(json.dumps(crossing)) != function_of(attention("mha"))


def test_values_of_bins_and_other_tasks_are_not_the_whole() -> None:
    rows = [quality_row("mha", 0, 2.0), changed(quality_row("mha", 0, 5.0), position=64)]
    rows += [changed(quality_row("mha", 0, 6.0), length=512), recall_row("mha", 0, 0.5, 32), recall_row("mha", 0, 0.9)]
    book = QualityBook(rows)
    assert str(book.bits_per_byte("mha", None)) == "2.000 (n=1)"
    assert str(book.recall("mha", None)) == "0.900 (n=1)"


def test_a_checkpoint_counts_only_where_no_comparison_was_made_and_says_so() -> None:
    alone = quality_row("mha", 0, 3.0, regime="checkpoint")
    book = QualityBook([alone])
    assert str(book.bits_per_byte("mha", None)) == "3.000 (n=1), checkpoint"
    assert book.bits_per_byte("mha", None, regime="equal_seconds") is None
    assert str(QualityBook([alone, quality_row("mha", 0, 2.0)]).bits_per_byte("mha", None)) == "2.000 (n=1)"


def test_training_for_equal_seconds_never_passes_for_training_on_equal_tokens() -> None:
    seconds = [recall_row("mha", 0, 0.1), quality_row("mha", 0, 9.0)]
    rows = [
        recall_row("mha", 0, 0.9),
        quality_row("mha", 0, 2.0),
        *(changed(row, regime="equal_seconds") for row in seconds),
    ]
    for each in (rows, rows[::-1]):
        book = QualityBook(each)
        assert str(book.recall("mha", None)) == "0.900 (n=1)"
        assert str(book.bits_per_byte("mha", None)) == "2.000 (n=1)"
    assert QualityBook([changed(rows[0], regime="equal_seconds")]).recall("mha", None) is None


def test_figures_of_another_model_or_other_data_are_never_lent() -> None:
    rows = [quality_row(name, 0, 2.0) for name in ("mha", "swa")]
    rows += [quality_row("mha", 0, 5.0, data="notes"), quality_row("linear", 0, 6.0, model="llama_tiny")]
    rows += [recall_row(name, 0, 0.9) for name in ("mha", "swa")]
    rows += [changed(recall_row("mha", 0, 0.2), model="gpt_tiny"), changed(recall_row("mha", 0, 0.3), data="mqar_long")]
    for each in (rows, rows[::-1]):
        book = QualityBook(each)
        assert str(book.bits_per_byte("mha", None)) == "2.000 (n=1)"
        assert book.bits_per_byte("linear", None) is None
        assert str(book.bits_per_byte("linear", None, model="llama_tiny")) == "6.000 (n=1)"
        assert book.bits_per_byte("mha", None, model="gpt_small") is None
        assert str(book.recall("mha", None)) == "0.900 (n=1)"
        assert book.words() == "Bits per byte: of gpt_tiny on stdlib; recall: of gpt_recall on mqar."
        assert "gpt_small was not trained" in book.words("gpt_small")


def test_a_figure_holds_one_model_data_and_regime() -> None:
    rows = [recall_row("mha", 0, 0.9, 4), recall_row("swa", 0, 0.8, 4)]
    others = [
        changed(rows[0], **field) for field in ({"regime": "equal_seconds"}, {"model": "gpt_tiny"}, {"data": "x"})
    ]
    alone = changed(rows[0], regime="checkpoint")
    assert of_main_subject(qualities([*others, alone, *rows])) == qualities(rows)
    assert of_main_subject(qualities([others[0], alone])) == qualities([alone])
    assert of_main_subject([]) == []


def test_equal_tokens_are_equal_and_the_budget_of_most_variants_counts() -> None:
    rows = [changed(quality_row(name, 0, 2.0), tokens=100) for name in ("mha", "swa")]
    rows += [changed(quality_row("mha", 0, 1.5), tokens=1000), changed(quality_row("linear", 0, 1.6), tokens=1000)]
    rows += [changed(quality_row("mqa", 0, 2.1), tokens=100)]
    for each in (rows, rows[::-1]):
        book = QualityBook(each)
        assert str(book.bits_per_byte("mha", None)) == "2.000 (n=1)"
        assert book.bits_per_byte("linear", None) is None
