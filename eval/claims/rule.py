"""What all rules share: from what they find in the rows to a judgement."""

import abc
import dataclasses

from eval.claims.claim import Judgement, Verdict
from eval.claims.evidence import Evidence
from eval.claims.verdict import verdict
from eval.query import Pair

OTHERS: Verdict = "different functions compared"
ELSEWHERE: Verdict = "not measurable on this device"
_DEVICES = {"metal": "Apple's GPU", "cpu": "a CPU"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a rule finds.

    Attributes:
        held: Whether the claim holds in our rows, or a verdict that no figure gives.
        ours: Our figures, in words.
        value: Our figure in the claim's own terms; None where there is none.
        low: Lower end of its 95 % interval.
        high: Upper end.
        reason: By which rule, and what else a reader must know.
        undecided: What our interval leaves open; empty if it decides.
        evidence: Identities of the rows used.
    """

    held: bool | Verdict
    ours: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    undecided: str = ""
    evidence: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(abc.ABC):
    """How one claim is judged.

    Attributes:
        defect: Why the published figure is of other functions than it names, or of other software; empty if it is not.
        note: What else a reader must know.
        only_on: Back end whose rows alone settle it, metal or cpu; empty for any.
        told_here: Whether to say what the verdict would be on a device that does not settle it.
    """

    defect: str = ""
    note: str = ""
    only_on: str = ""
    told_here: bool = False

    @abc.abstractmethod
    def outcome(self, evidence: Evidence) -> Outcome:
        """What the rows say.

        Raises:
            MissingRowsError: If they say nothing.
        """

    def judge(self, evidence: Evidence) -> Judgement:
        """The verdict; errors as of `outcome`."""
        found = self.outcome(evidence)
        like_for_like = verdict(found.held) if isinstance(found.held, bool) else found.held
        elsewhere = bool(self.only_on) and evidence.backend != self.only_on
        parts = [found.reason, self.note, f"Undecided: {found.undecided}." if found.undecided else ""]
        verdict_ = like_for_like
        if self.defect and isinstance(found.held, bool):
            verdict_ = OTHERS
            parts = [self.defect, "" if elsewhere else f"Like for like: {like_for_like}.", *parts]
        if elsewhere:
            here = f"On this device: {verdict_}." if self.told_here else ""
            parts = [f"The claim is about {_DEVICES[self.only_on]}; these rows are of {evidence.device}.", here, *parts]
            verdict_ = ELSEWHERE
        return Judgement(
            verdict=verdict_,
            ours=found.ours,
            value=found.value,
            low=found.low,
            high=found.high,
            reason=" ".join(part for part in parts if part),
            evidence=found.evidence,
        )


def with_interval(value: float, low: float | None, high: float | None, *, digits: int = 2) -> str:
    """A figure and its 95 % interval, in words."""
    if low is None or high is None:
        return f"{value:.{digits}f} (a single sample, no interval)"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def times(pair: Pair) -> str:
    """A ratio of times with its interval, in words."""
    return with_interval(pair.ratio.ratio, pair.ratio.low, pair.ratio.high) + "x"
