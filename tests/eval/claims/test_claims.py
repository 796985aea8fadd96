"""The list of claims, and a verdict on each from any rows."""

import itertools
import re
import typing

import pytest

from eval.claims import RULES, Verdict, all_claims, judge, read_claims
from eval.claims.claim import KINDS
from eval.claims.quantities import QUANTITIES, Absolute
from tests.eval.claims import worlds
from tests.eval.claims.worlds import NO, OTHER, YES, findings_of, on_metal
from tests.eval.rows_factory import MACHINE, untimed_row
from zoo.config import UserError

# What was published on Apple's GPU and is judged from another device.
SENTENCE = f"Published on Apple's GPU; the verdict is for {MACHINE.device}."
VERDICTS = typing.get_args(Verdict)
# Settled by the documents' own figures, by arithmetic.
BY_ARITHMETIC = {"feature-map", "elbow-l2", "intervals", "slope-mha-own", "slope-blocksparse-own", "slope-linear-own"}


def test_every_claim_has_a_name_of_its_own_and_no_rule_is_idle():
    claims = all_claims()
    assert len(claims) == len({claim.id for claim in claims}) == 112
    assert {type(claim.judge) for claim in claims} == set(RULES.values())
    assert {claim.judge.quantity for claim in claims if isinstance(claim.judge, Absolute)} == set(QUANTITIES)
    assert {kind for claim in claims for kind in claim.judge.kind} == set(KINDS)


RATIO = "rule: ratio, above: unfused MHA, below: linear, lengths: [1024], kind: above"
POST = f"""
source: A post
where: {{suite: attnbench, mode: forward, batch_size: 1}}
series:
  unfused MHA: {{mechanism: softmax, implementation: manual, causal: false}}
  linear: {{mechanism: linear, implementation: chunked, causal: false}}
claims:
  wins:
    statement: Linear attention is faster at N=1024
    published: faster
    judge: {{{RATIO}}}
"""


def test_a_further_claim_is_one_entry_of_a_file(tmp_path):
    path = tmp_path / "post.yaml"
    path.write_text(POST, encoding="utf-8")
    (claim,) = read_claims(path)
    (finding,) = judge(worlds.attnbench_rows(), [claim])
    assert (claim.source, finding.verdict) == ("A post", "reproduced")
    assert finding.value == pytest.approx(4.38 / 2.75, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rule: ratio", "rule: ration"), "claim wins: rule must be one; got 'ration' .*ranking"),
        (("rule: ratio, ", ""), "claim wins: rule must be one; got 'None' .*ranking"),
        (("below: linear", "below: lineal"), "claim wins: below.* got 'lineal' .*unfused MHA"),
        (("kind: above", "sort: above"), "claim wins: .*got 'sort' .*kind"),
        (("kind: above", "kind: over"), "claim wins: .*kind must be one; got 'over' .*above"),
        (("kind: above", "kind: figure"), "claim wins: .*figures must be 1 for figure"),
        ((", kind: above", ""), "claim wins: kind: Field required"),
        (("[1024]", "long"), "claim wins: lengths: .* got 'long'"),
        (("    published: faster\n", ""), "claim wins: published: Field required"),
        (("suite: attnbench", "suit: attnbench"), "claim wins: where .*got 'suit' .*suite"),
        (("mechanism: linear", "mechanism: [linear]"), "series linear: mechanism"),
        (("source: A post\n", ""), "file: source: Field required"),
        (("series:", "serie:"), "file: .*got 'serie' .*series"),
        ((RATIO, "quantity: size"), "claim wins: quantity must be one; got 'size' .*tokens_per_second"),
        ((RATIO, "quantity: p_value, series: [linear], lengths: [9]"), "claim wins: series must be 2 for p_value"),
        ((RATIO, "quantity: half_precision_elu"), "claim wins: x must be 1 for half_precision_elu; got 0"),
        ((RATIO, "quantity: slope, given: {x: 1}"), "claim wins: a key .*slope takes; got 'x' .*lengths"),
        ((f"{{{RATIO}}}", "faster"), "claim wins: judge must be a mapping .* got 'faster'"),
        (("kind: above", "kind: above, where: forward"), "claim wins: where must be a mapping .* got 'forward'"),
    ],
)
def test_a_mistake_in_a_file_of_claims_names_where_it_is_and_the_choices(change, message, tmp_path):
    path = tmp_path / "post.yaml"
    assert change[0] in POST
    path.write_text(POST.replace(*change).replace("{quantity", "{rule: absolute, quantity"), encoding="utf-8")
    with pytest.raises(UserError, match=f"post.yaml: {message}"):
        read_claims(path)


def test_no_rows_give_every_claim_a_verdict_and_a_reason():
    findings = judge([])
    assert [finding.claim for finding in findings] == list(all_claims())
    assert {finding.claim.id for finding in findings if finding.verdict != "not measured"} == BY_ARITHMETIC
    assert all(finding.reason for finding in findings)
    assert all(not finding.identities for finding in findings)


def test_full_rows_leave_no_claim_unmeasured_but_the_one_that_no_row_can_settle():
    identities = {row.identity for row in worlds.published_world()}
    for name, finding in worlds.published_findings().items():
        assert (finding.verdict == "not measured") == (name == "drop-in")
        assert finding.verdict in VERDICTS
        assert finding.reason
        assert finding.ours or name == "drop-in"
        assert set(finding.identities) <= identities, name
        assert finding.identities or name in {*BY_ARITHMETIC, "drop-in"}, name
        if None not in (finding.value, finding.low, finding.high):
            assert finding.low <= finding.value <= finding.high, name


def test_the_order_of_rows_does_not_matter():
    assert judge(worlds.published_world()[::-1]) == list(worlds.published_findings().values())


def test_rows_without_times_are_gaps_with_their_reason():
    cells, statuses = [row.cell for row in worlds.published_world() if row.cell], ("incorrect", "crashed", "skipped")
    of_cells = itertools.cycle(statuses)
    findings = findings_of([untimed_row(cell, status=next(of_cells), reason="planted") for cell in cells])
    assert {name for name, finding in findings.items() if finding.verdict != "not measured"} == BY_ARITHMETIC
    for name in ("gather-128", "slope-mha"):
        assert re.search(f"({'|'.join(statuses)}), planted", findings[name].reason)
    for status in statuses:
        assert any(f"{status}, planted" in finding.reason for finding in findings.values())


def test_single_samples_have_no_interval_and_so_no_verdict():
    names = ("gather-128", "gather-worse", "linear-crossover", "slope-mha", "elbow", "best-128", "wrapper-cpu")
    findings = findings_of([*worlds.attnbench_rows(rounds=1), *worlds.wrapper_rows(rounds=1)], *names)
    for name in names:
        assert findings[name].verdict == "not measured", name
    assert findings["gather-128"].reason == "a single sample has no interval"


def test_rows_of_two_devices_are_never_mixed():
    findings = findings_of([*worlds.attnbench_rows(), *on_metal(worlds.wrapper_rows())], "wrapper-bits", "slope-mha")
    assert findings["wrapper-bits"].verdict == "not measured"
    assert findings["slope-mha"].verdict == "not reproduced"
    assert "the verdict is for Planted Processor" in findings["slope-mha"].reason


def test_the_published_table_is_the_documents():
    assert worlds.PRINTED["MHA"] == pytest.approx({128: 0.00104, 256: 0.00142, 512: 0.00172, 1024: 0.00438})
    assert worlds.PRINTED["SWA (gather)"] == {128: 0.00708, 256: 0.01235}


def test_every_verdict_from_another_device_on_apples_gpu_says_so_once():
    silent = {claim.id for claim in all_claims() if not claim.on_apple}
    assert silent == {"gqa-memory", "mqa-cache", "linear-approximates", "intervals", "wrapper-cpu"}
    for name, finding in worlds.published_findings().items():
        due = finding.verdict in (YES, NO, OTHER) and name not in silent and bool(finding.identities)
        assert finding.reason.count(SENTENCE) == due, name
