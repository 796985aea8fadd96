"""From rows to a verdict on every published claim."""

from collections.abc import Callable, Mapping, Sequence

from eval.claims import choices, crossovers, grid, memory, method, quality, ratios, slopes, training, wrapper
from eval.claims.claim import Claim, Finding, Judgement, MissingRowsError
from eval.claims.evidence import Evidence
from eval.claims.published import CLAIMS
from eval.rows import Row

JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    identity: judge
    for part in (ratios, crossovers, slopes, choices, method, memory, training, grid, wrapper, quality)
    for identity, judge in part.JUDGES.items()
}


def judge(rows: Sequence[Row]) -> list[Finding]:
    """A finding for every claim, in the order of `CLAIMS`.

    Args:
        rows: Of any suites; where they are of several devices, those of the device with most speed rows are judged.

    Returns:
        Verdicts computed from the rows; "not measured", with the reason, where rows are missing.
    """
    evidence = Evidence(rows)
    return [_finding(claim, evidence) for claim in CLAIMS]


def _finding(claim: Claim, evidence: Evidence) -> Finding:
    try:
        found = JUDGES[claim.id](evidence)
    except MissingRowsError as missing:
        found = Judgement(verdict="not measured", ours="", reason=f"{missing}")
    others = ", ".join(evidence.other_devices)
    return Finding(
        claim=claim,
        verdict=found.verdict,
        ours=found.ours,
        value=found.value,
        low=found.low,
        high=found.high,
        reason=found.reason + (f" Rows of {others} are not in it." if others and found.evidence else ""),
        evidence=found.evidence,
    )
