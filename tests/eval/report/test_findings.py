"""The first screen and the last: sentences computed from rows, every claim a verdict, every row counted."""

from eval.claims import Finding, judge
from eval.report.findings import claim_lines, commits, coverage_table, findings, machines_table, reasons_table
from eval.rows import Row
from tests.eval.rows_factory import quality_row, skipped, speed


def test_each_finding_is_a_sentence_with_its_figures(rows: list[Row], judged: list[Finding]) -> None:
    found = findings(rows, judged)
    fastest, same, smallest, recall, claims, sure = found
    assert fastest.startswith("On Planted Processor, 2 cores, Linux CPU (cpu), linear trains fastest: 1.1")
    assert "bits per byte: +0.3" in fastest
    assert "mha_manual, is not faster" in same
    assert "The smallest decoding cache is that of linear: 8.79 KiB against 512 KiB of mha" in smallest
    assert recall.startswith("At recall mha reaches 0.950 ± 0.000 (n=3)")
    assert claims.startswith("Of 112 published claims: ")
    assert "of 12 things that were timed against themselves" in sure


def test_rows_that_say_little_give_few_sentences() -> None:
    for rows in ([skipped(1)], [speed(64)], [quality_row("swa", 0, 2.0)], [quality_row("mha", 0, 2.0)]):
        (claims,) = findings(rows, judge(rows))
        assert "published claims" in claims


def test_every_claim_has_one_line_with_a_verdict_and_a_reason(judged: list[Finding]) -> None:
    lines = [line for own in claim_lines(judged).values() for line in own]
    assert sorted(line["id"] for line in lines) == sorted(each.claim.id for each in judged)
    assert all(line["verdict"] and line["reason"] for line in lines)


def test_coverage_counts_every_row(rows: list[Row]) -> None:
    table = coverage_table(rows)
    (total,) = [line for line in table.records() if line["suite"] == "all"]
    assert int(total["rows"]) == len(rows) == sum(int(total[name]) for name in table.columns[2:])
    assert int(total["skipped"]) == sum(row.status == "skipped" for row in rows)


def test_reasons_are_counted() -> None:
    assert reasons_table([speed(1), skipped(2), skipped(3)]).rows == (("skipped", "2", "128 MiB do not fit"),)


def test_machines_tell_of_changes_that_were_not_committed() -> None:
    row = speed(1)
    dirty = row.model_copy(update={"machine": row.machine.model_copy(update={"uncommitted_changes": True})})
    assert commits([row, dirty]) == "0123456789, 0123456789 + changes"
    table = machines_table([row, dirty])
    assert [line["uncommitted changes"] for line in table.records()] == ["no", "yes"]
    assert "device: Planted Processor, 2 cores, Linux CPU; " in table.note
