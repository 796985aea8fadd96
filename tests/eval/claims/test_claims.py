"""The list of claims, and a verdict on each from any rows."""

import typing

import pytest

from eval.claims import CLAIMS, Verdict, judge
from eval.claims.judge import JUDGES
from eval.claims.published import table
from tests.eval.claims.worlds import (
    as_published,
    attnbench_rows,
    findings_of,
    on_metal,
    published_attnbench,
    published_findings,
    published_world,
    quality_rows,
    wrapper_rows,
)
from tests.eval.rows_factory import untimed_row

VERDICTS = typing.get_args(Verdict)
# Settled by the documents' own figures, by arithmetic.
BY_ARITHMETIC = {
    "feature-map",
    "elbow-l2",
    "intervals",
    "slope-mha-own",
    "slope-blocksparse-own",
    "slope-linear-own",
}
SOURCES = {
    "AttnBench, article",
    "AttnBench, article and post",
    "Flash Attention Implementation Comparison",
    "PyTorch issue 181725",
}


def test_every_claim_has_a_name_of_its_own_and_a_judge_and_no_judge_is_idle():
    identities = [claim.id for claim in CLAIMS]

    assert len(identities) == len(set(identities))
    assert set(JUDGES) == set(identities)


def test_every_claim_says_what_was_published_where():
    for claim in CLAIMS:
        assert claim.statement, claim.id
        assert claim.published, claim.id
    assert {claim.source for claim in CLAIMS} == SOURCES


def test_no_rows_give_every_claim_a_verdict_and_a_reason():
    findings = judge([])

    assert [finding.claim for finding in findings] == list(CLAIMS)
    assert {finding.claim.id for finding in findings if finding.verdict != "not measured"} == BY_ARITHMETIC
    assert all(finding.reason for finding in findings)
    assert all(not finding.evidence for finding in findings)


def test_full_rows_leave_no_claim_unmeasured_but_the_one_that_no_row_can_settle():
    findings = published_findings().values()

    assert [finding.claim.id for finding in findings if finding.verdict == "not measured"] == ["drop-in"]
    assert {finding.verdict for finding in findings} <= set(VERDICTS)
    assert all(finding.ours and finding.reason for finding in findings)


def test_the_evidence_of_a_finding_is_rows_that_are_there():
    identities = {row.identity for row in published_world()}

    for name, finding in published_findings().items():
        assert set(finding.evidence) <= identities, name
        assert finding.evidence or name in BY_ARITHMETIC, name


def test_a_figure_lies_within_its_interval():
    for finding in published_findings().values():
        if finding.value is not None and finding.low is not None and finding.high is not None:
            assert finding.low <= finding.value <= finding.high, finding.claim.id


def test_the_order_of_rows_does_not_matter():
    rows = [*published_attnbench(), *quality_rows({"mha": (2.0, 2.01), "linear": (2.3, 2.31)})]

    assert judge(rows[::-1]) == judge(rows)


@pytest.mark.parametrize("status", ["incorrect", "out_of_memory", "crashed", "skipped"])
def test_rows_without_times_are_gaps_with_their_reason(status):
    rows = [untimed_row(row.cell, status=status, reason="planted") for row in published_world() if row.cell]

    findings = findings_of(rows)

    assert {name for name, finding in findings.items() if finding.verdict != "not measured"} == BY_ARITHMETIC
    assert f"{status}, planted" in findings["gather-128"].reason
    assert f"{status}, planted" in findings["slope-mha"].reason


def test_single_samples_have_no_interval_and_so_no_verdict():
    findings = findings_of([*attnbench_rows(as_published, rounds=1), *wrapper_rows(rounds=1)])

    for name in ("gather-128", "gather-worse", "linear-crossover", "slope-mha", "elbow", "best-128", "wrapper-cpu"):
        assert findings[name].verdict == "not measured", name
    assert findings["gather-128"].reason == "a single sample has no interval"


def test_rows_of_two_devices_are_never_mixed():
    findings = findings_of([*published_attnbench(), *on_metal(wrapper_rows())])

    assert findings["wrapper-bits"].verdict == "not measured"
    assert findings["slope-mha"].verdict == "not reproduced"
    assert "Rows of Apple M4 are not in it." in findings["slope-mha"].reason


def test_quality_rows_alone_are_judged():
    findings = findings_of(quality_rows({"mha": (2.0, 2.01), "linear": (2.3, 2.31)}))

    assert findings["linear-approximates"].verdict == "reproduced"


def test_the_published_table_is_the_documents():
    assert table.MILLISECONDS["MHA"] == (1.04, 1.42, 1.72, 4.38)
    assert table.measured("SWA (gather)") == ((128, 256), (0.00708, 0.01235))
