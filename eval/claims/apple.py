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


def from_elsewhere(evidence: Evidence) -> str:
    """What a reader of a verdict about Apple's GPU must know where the rows are of another device."""
    if evidence.device is None or on_metal(evidence):
        return ""
    return f"Published on Apple's GPU; the verdict is for {evidence.device}."


def like_for_like(evidence: Evidence, held: Verdict) -> str:
    """What our figure alone would say, where there is a figure to compare with: on Apple's GPU."""
    return f" Like for like: {held}." if on_metal(evidence) else ""


def only_on_metal(evidence: Evidence, judgement: Judgement, *, told_here: bool = False) -> Judgement:
    """A judgement where it can be made, and elsewhere why it cannot; our figures stay.

    Args:
        evidence: Whose device matters.
        judgement: As it would be on Apple's GPU.
        told_here: Whether to say what the verdict on this device would be.
    """
    if on_metal(evidence):
        return judgement
    here = f" On this device: {judgement.verdict}." if told_here else ""
    elsewhere: Verdict = "not measurable on this device"
    return Judgement(
        verdict=elsewhere,
        ours=judgement.ours,
        value=judgement.value,
        low=judgement.low,
        high=judgement.high,
        reason=f"The claim is about Apple's GPU; these rows are of {evidence.device}.{here} {judgement.reason}".strip(),
        evidence=judgement.evidence,
    )
