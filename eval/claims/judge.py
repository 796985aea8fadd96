"""From rows to a verdict on every published claim."""

from collections.abc import Sequence

from eval.claims.catalog import published
from eval.claims.claim import Claim, Finding, Judgement, MissingRowsError
from eval.claims.evidence import Evidence
from eval.rows import Row


def judge(rows: Sequence[Row], claims: Sequence[Claim] | None = None) -> list[Finding]:
    """A finding for every claim, in their order.

    Args:
        rows: Of any suites; where they are of several devices, those of the device with most speed rows are judged.
        claims: Some of the published ones; None for all.

    Returns:
        Verdicts computed from the rows; "not measured", with the reason, where rows are missing.
    """
    evidence = Evidence(rows)
    return [_finding(claim, evidence) for claim in (all_claims() if claims is None else claims)]


def all_claims() -> list[Claim]:
    """Every published claim, source by source."""
    return [each.claim for each in published().values()]


def _finding(claim: Claim, evidence: Evidence) -> Finding:
    try:
        found = published()[claim.id].rule.judge(evidence)
    except MissingRowsError as missing:
        found = Judgement(verdict="not measured", ours="", reason=f"{missing}")
    notes = [found.reason]
    settled = found.verdict not in ("not measured", "not measurable on this device")
    if found.evidence and claim.on_apple and settled and evidence.backend != "metal":
        notes.append(f"Published on Apple's GPU; the verdict is for {evidence.device}.")
    if found.evidence and evidence.other_devices:
        notes.append(f"Rows of {', '.join(evidence.other_devices)} are not in it.")
    return Finding(claim=claim, **{**vars(found), "reason": " ".join(note for note in notes if note)})
