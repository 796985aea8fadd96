"""What a published claim is, and the rules by which an interval becomes a verdict, all in one place.

- A claim with a figure is reproduced if our 95 % interval overlaps the published figure give or take 10 %, and, where
  the figure is a ratio that claims a difference, lies wholly on its side of 1. A figure within 2 % of 1 claims a tie.
- A claim of direction ("slower", "wins") is reproduced if our interval lies wholly on the published side of 1.
- A claim of equality ("about 1x", "marginal", 1.01x) is reproduced if our interval lies within 10 % of 1.
- A claim about slopes is reproduced if our interval overlaps the published slope give or take 0.1.
- A claim about a crossover is reproduced if our interval overlaps the published range give or take 10 %.
- Whatever compared two functions that were said to be one, or timed another function than it names, is "different
  functions compared"; our figure stands beside it, like for like, with what its verdict would have been.
- So is a function that was compared with itself, one that never ran, and other software than this library's.
- Absolute figures of Apple's GPU, and what its hardware is said to favour, are not measurable elsewhere.
- What ranks several is reproduced only if the interval of every other one's ratio to the winner excludes 1.
"""

import abc
import dataclasses
from typing import Literal

from eval.claims.measurements import Measurements, MissingRowsError
from eval.query import Pair
from eval.statistics import Contrast, Crossover

Verdict = Literal[
    "reproduced",
    "not reproduced",
    "different functions compared",
    "not measurable on this device",
    "not measured",
]
OTHERS: Verdict = "different functions compared"
ELSEWHERE: Verdict = "not measurable on this device"
FIGURE_TOLERANCE = 0.10
SLOPE_TOLERANCE = 0.10
EQUALITY = 0.02
_DEVICES = {"metal": "Apple's GPU", "cpu": "a CPU"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A published statement.

    Attributes:
        id: Names it, for good.
        source: Who states it.
        statement: What it says, in a sentence.
        published: Its figure, as printed.
        on_apple: Whether it is about Apple's GPU: False where it is of another device, or the same on any.
    """

    id: str
    source: str
    statement: str
    published: str
    on_apple: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim and what the rows say of it.

    Attributes:
        claim: The claim.
        verdict: Computed by the rules above.
        ours: Our figures, in words.
        value: Our figure in the claim's own terms; None where there is none.
        low: Lower end of its 95 % interval.
        high: Upper end.
        reason: Why the verdict, and what else a reader must know.
        evidence: Identities of the rows used.
    """

    claim: Claim
    verdict: Verdict
    ours: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a rule finds.

    Attributes:
        held: Whether the claim holds in our rows, or a verdict that no figure gives.
        ours: Our figures, in words.
        figure: Our figure in the claim's own terms; None where there is none.
        reason: By which rule, and what else a reader must know.
        undecided: What our interval leaves open; empty if it decides.
        evidence: Identities of the rows used.
    """

    held: bool | Verdict
    ours: str
    figure: Contrast | Crossover | None = None
    reason: str = ""
    undecided: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def interval(self) -> dict[str, float | None]:
        """The figure and its ends, as a finding names them."""
        if self.figure is None:
            return {}
        value = self.figure.length if isinstance(self.figure, Crossover) else self.figure.value
        return {"value": value, "low": self.figure.low, "high": self.figure.high}


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
    def outcome(self, measurements: Measurements) -> Outcome:
        """What the rows say.

        Raises:
            MissingRowsError: If they say nothing.
        """

    def judge(self, claim: Claim, measurements: Measurements) -> Finding:
        """The verdict on a claim; errors as of `outcome`."""
        found = self.outcome(measurements)
        like_for_like = verdict(found.held) if isinstance(found.held, bool) else found.held
        elsewhere = bool(self.only_on) and measurements.backend != self.only_on
        parts = [found.reason, self.note, f"Undecided: {found.undecided}." if found.undecided else ""]
        verdict_ = like_for_like
        if self.defect and isinstance(found.held, bool):
            verdict_ = OTHERS
            parts = [self.defect, "" if elsewhere else f"Like for like: {like_for_like}.", *parts]
        if elsewhere:
            here = f"On this device: {verdict_}." if self.told_here else ""
            parts = [
                f"The claim is about {_DEVICES[self.only_on]}; these rows are of {measurements.device}.",
                here,
                *parts,
            ]
            verdict_ = ELSEWHERE
        return Finding(
            claim=claim,
            verdict=verdict_,
            ours=found.ours,
            **found.interval,
            reason=" ".join(part for part in parts if part),
            evidence=found.evidence,
        )


def verdict(holds: bool) -> Verdict:
    """Of a claim that holds in our rows, or does not."""
    return "reproduced" if holds else "not reproduced"


def point(value: float) -> Contrast:
    """A figure without an interval."""
    return Contrast(value=value, low=None, high=None)


def known(found: Contrast) -> tuple[float, float]:
    """Both ends of an interval.

    Raises:
        MissingRowsError: If there is none, because there was one sample only; so do all the functions below.
    """
    if found.low is None or found.high is None:
        raise MissingRowsError("a single sample has no interval")
    return found.low, found.high


def same_side(found: Contrast, *, above: bool) -> bool:
    """Whether an interval of a ratio lies wholly above 1, or wholly below."""
    low, high = known(found)
    return low > 1 if above else high < 1


def in_range(found: Contrast, least: float, most: float, tolerance: float = FIGURE_TOLERANCE) -> bool:
    """Whether an interval overlaps a range of positive figures give or take a tolerance; or one figure, given twice."""
    low, high = known(found)
    return low <= most * (1 + tolerance) and high >= least * (1 - tolerance)


def is_tie(published: float) -> bool:
    """Whether a published ratio claims a tie."""
    return abs(published - 1) <= EQUALITY


def same_figure(found: Contrast, published: float) -> bool:
    """Whether an interval of a ratio agrees with a published ratio."""
    if is_tie(published):
        return ties(found)
    return in_range(found, published, published) and same_side(found, above=published > 1)


def ties(found: Contrast) -> bool:
    """Whether an interval of a ratio lies within the tolerance of 1."""
    low, high = known(found)
    return low >= 1 - FIGURE_TOLERANCE and high <= 1 + FIGURE_TOLERANCE


def same_slope(found: Contrast, published: float) -> bool:
    """Whether an interval of a slope agrees with a published slope."""
    low, high = known(found)
    return low <= published + SLOPE_TOLERANCE and high >= published - SLOPE_TOLERANCE


def with_interval(found: Contrast, *, digits: int = 2) -> str:
    """A figure and its 95 % interval, in words."""
    if found.low is None or found.high is None:
        return f"{found.value:.{digits}f} (a single sample, no interval)"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def times(pair: Pair) -> str:
    """A ratio of times with its interval, in words."""
    return with_interval(pair.ratio) + "x"
