"""The first screen and the last: sentences computed from rows, every claim a verdict, every row counted."""

import pytest

from eval.claims import Finding, judge
from eval.report.findings import claim_lines, commits, coverage_table, findings, machines_table, reasons_table
from eval.rows import Row
from tests.eval.rows_factory import altered, quality_row, skipped, speed


def test_each_finding_is_a_sentence_with_its_figures(rows: list[Row], judged: list[Finding]) -> None:
    fastest, same, smallest, recall, claims, sure = findings(rows, judged)
    assert fastest.startswith("On Planted Processor, 2 cores, Linux CPU (cpu), linear trains fastest: 1.1")
    assert "bits per byte: +0.3" in fastest
    assert "mha_manual, is not faster" in same
    assert "The smallest decoding cache is that of linear: 8.79 KiB against 512 KiB of mha" in smallest
    assert recall.startswith("At recall mha reaches 0.950 ± 0.000 (n=3)")
    assert claims.startswith("Of 112 published claims: ")
    assert "of 12 things that were timed against themselves" in sure


@pytest.mark.parametrize("row", [skipped(1), speed(64), quality_row("swa", 0, 2.0), quality_row("mha", 0, 2.0)])
def test_rows_that_say_little_give_few_sentences(row: Row) -> None:
    (claims,) = findings([row], judge([row]))
    assert "published claims" in claims


def test_every_claim_has_one_line_with_a_verdict_and_a_reason(judged: list[Finding]) -> None:
    lines = [line for own in claim_lines(judged).values() for line in own]
    assert sorted(line["id"] for line in lines) == sorted(each.claim.id for each in judged)
    assert all(line["verdict"] and line["reason"] for line in lines)


def test_coverage_counts_every_row_and_reasons_are_counted(rows: list[Row]) -> None:
    total = coverage_table(rows).lines[-1]
    statuses = set(total) - {"suite", "rows"}
    assert total["suite"] == "all"
    assert int(total["rows"]) == len(rows) == sum(int(total[name]) for name in statuses)
    assert int(total["skipped"]) == sum(row.status == "skipped" for row in rows)
    reasons = reasons_table([speed(1), skipped(2), skipped(3)])
    assert reasons.lines == [{"status": "skipped", "rows": "2", "reason": "128 MiB do not fit"}]


def test_machines_tell_of_changes_that_were_not_committed() -> None:
    rows = [speed(1), altered(speed(1), "machine", uncommitted_changes=True)]
    assert commits(rows) == "0123456789, 0123456789 + changes"
    table = machines_table(rows)
    assert [line["uncommitted changes"] for line in table.lines] == ["no", "yes"]
    assert "device: Planted Processor, 2 cores, Linux CPU; " in table.note
