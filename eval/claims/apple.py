"""Claims about Apple's GPU: a figure elsewhere stands beside them, but does not settle them."""

from eval.claims.claim import Judgement, MissingRowsError, Verdict
from eval.claims.evidence import Evidence


def on_metal(evidence: Evidence) -> bool:
    """Whether the rows were measured on Apple's GPU.

    Raises:
        MissingRowsError: If there are no rows.
    """
    if evidence.device is None:
        raise MissingRowsError("no rows")
    return evidence.backend == "metal"


def only_on_metal(evidence: Evidence, judgement: Judgement) -> Judgement:
    """A judgement where it can be made, and elsewhere why it cannot; our figures stay."""
    if on_metal(evidence):
        return judgement
    elsewhere: Verdict = "not measurable on this device"
    return Judgement(
        verdict=elsewhere,
        ours=judgement.ours,
        value=judgement.value,
        low=judgement.low,
        high=judgement.high,
        reason=f"The claim is about Apple's GPU; these rows are of {evidence.device}. {judgement.reason}".strip(),
        evidence=judgement.evidence,
    )
