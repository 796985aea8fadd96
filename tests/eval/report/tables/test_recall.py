"""The table of recall has a column for each number of pairs, of one comparison alone."""

from eval.report.tables.trainings import recall_table
from tests.eval.report.planted import changed, recall_row


def test_means_over_seeds_stand_by_number_of_pairs() -> None:
    rows = [recall_row("mha", seed, value, 4) for seed, value in enumerate((1.0, 0.998))]
    rows += [recall_row("mha", 0, 0.5, 16), recall_row("linear", 0, 0.25, 4), recall_row("mha", 0, 0.9)]
    rows += [changed(recall_row("swa", 0, 0.1, 4), regime="equal_seconds")]
    table = recall_table(rows)
    assert table.columns == ("variant", "tokens of a row", "4 pairs", "16 pairs")
    assert table.rows == (("mha", "128", "0.999 ± 0.001 (n=2)", "0.500 (n=1)"), ("linear", "128", "0.250 (n=1)", "–"))
    assert "gpt_recall on mqar" in table.note


def test_rows_of_another_length_have_a_line_of_their_own() -> None:
    rows = [recall_row("mha", 0, 0.9, 4), changed(recall_row("mha", 0, 0.7, 4), length=64)]
    assert [line[1:] for line in recall_table(rows).rows] == [("128", "0.900 (n=1)"), ("64", "0.700 (n=1)")]


def test_without_recall_there_is_no_line() -> None:
    assert recall_table([]).rows == ()
