"""The quality beside a speed is that of the same function, over its own seeds."""

import pytest

from eval.report.qualities import QualityBook, function_of
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


def test_values_of_bins_and_other_tasks_are_not_the_whole() -> None:
    rows = [quality_row("mha", 0, 2.0), changed(quality_row("mha", 0, 5.0), position=64)]
    rows += [changed(quality_row("mha", 0, 6.0), length=512), recall_row("mha", 0, 0.5, 32), recall_row("mha", 0, 0.9)]
    bits, recall = QualityBook(rows).beside("mha", None)
    assert bits == "2.000 (n=1)"
    assert recall == "0.900 (n=1)"


def test_a_checkpoint_counts_only_where_no_comparison_was_made_and_says_so() -> None:
    alone = quality_row("mha", 0, 3.0, regime="checkpoint")
    book = QualityBook([alone])
    assert str(book.bits_per_byte("mha", None)) == "3.000 (n=1), checkpoint"
    assert book.bits_per_byte("mha", None, regime="equal_seconds") is None
    assert str(QualityBook([alone, quality_row("mha", 0, 2.0)]).bits_per_byte("mha", None)) == "2.000 (n=1)"
