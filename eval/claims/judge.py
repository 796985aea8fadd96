"""From rows to a verdict on every published claim."""

from collections.abc import Callable, Mapping, Sequence

from eval.claims import (
    advice,
    choices,
    crossovers,
    grid,
    memory,
    method,
    quality,
    ratios,
    slopes,
    training,
    wrapper,
)
from eval.claims.apple import from_elsewhere
from eval.claims.claim import Claim, Finding, Judgement, MissingRowsError
from eval.claims.evidence import Evidence
from eval.claims.published import CLAIMS
from eval.rows import Row

JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    identity: judge
    for part in (ratios, crossovers, slopes, choices, advice, method, memory, training, grid, wrapper, quality)
    for identity, judge in part.JUDGES.items()
}


def judge(rows: Sequence[Row], claims: Sequence[Claim] = CLAIMS) -> list[Finding]:
    """A finding for every claim, in their order.

    Args:
        rows: Of any suites; where they are of several devices, those of the device with most speed rows are judged.
        claims: Some or all of the published ones.

    Returns:
        Verdicts computed from the rows; "not measured", with the reason, where rows are missing.
    """
    evidence = Evidence(rows)
    return [_finding(claim, evidence) for claim in claims]


def _finding(claim: Claim, evidence: Evidence) -> Finding:
    try:
        found = JUDGES[claim.id](evidence)
    except MissingRowsError as missing:
        found = Judgement(verdict="not measured", ours="", reason=f"{missing}")
    notes = [found.reason]
    if found.evidence and claim.on_apple and found.verdict not in ("not measured", "not measurable on this device"):
        notes.append(from_elsewhere(evidence))
    if found.evidence and evidence.other_devices:
        notes.append(f"Rows of {', '.join(evidence.other_devices)} are not in it.")
    return Finding(
        claim=claim,
        verdict=found.verdict,
        ours=found.ours,
        value=found.value,
        low=found.low,
        high=found.high,
        reason=" ".join(note for note in notes if note),
        evidence=found.evidence,
    )
