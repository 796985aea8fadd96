"""What a published claim is, what can be claimed of figures, and when our 95 % intervals bear it out: see `KINDS`.

Whatever compared two functions that were said to be one, or one with itself, never ran, or is other software than this
library's is "different functions compared"; our figure stands beside it, like for like, with what its verdict would
have been. Figures of Apple's GPU, and what its hardware is said to favour, are not measurable elsewhere.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from eval.claims.measurements import Entry, Measurements, MissingRowsError, Scope, as_list
from eval.query import Measured
from eval.rows import Row
from eval.statistics import Contrast, Crossover
from zoo.config.errors import require

Verdict = Literal[
    "reproduced", "not reproduced", "different functions compared", "not measurable on this device", "not measured"
]
ELSEWHERE: Verdict = "not measurable on this device"
Show = Literal["failing", "last", "least", "largest", "farthest", "none"]
FIGURE_TOLERANCE = 0.10
SLOPE_TOLERANCE = 0.10
EQUALITY = 0.02
# What is counted, not timed, agrees to the byte, or to the block in which a cache grows.
_COUNT_TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What a rule reads from rows.

    Attributes:
        figures: Each with its name, which says of what or where.
        of: What they are, and `form` how a number of them is printed.
        counted: Whether those without an interval are counted or summed up; else a single sample left them without.
        holds: False, or a verdict, where something beside the figures settles the claim.
        own: The claim's figure, where it is none of the figures.
        beside: What else was measured, and `reason` what else a reader must know, in words.
        rows: All that were used.
    """

    figures: Sequence[tuple[str, Contrast]] = ()
    of: str = ""
    form: str = "{:.2f}x"
    counted: bool = False
    holds: bool | Verdict = True
    own: Contrast | Crossover | None = None
    beside: Sequence[str] = ()
    reason: str = ""
    rows: Sequence[Measured | Row] = ()


class _Kind(NamedTuple):
    """What a claim says of a figure, how many published figures it needs, and whether an interval bears it out.

    The last is told the low end, the figure, the high end and the published figures, which are 1 where there are none.
    """

    words: str
    needs: int
    holds: Callable[[float, float, float, Sequence[float]], bool]


KINDS = {
    "any": _Kind("", 0, lambda low, at, high, told: True),
    # Ratios of times. One that has several published figures has to agree with all of them.
    "figure": _Kind("published {}", 1, lambda low, at, high, told: all(_same_ratio(low, high, each) for each in told)),
    "range": _Kind("published {}", 2, lambda low, at, high, told: low > 1 and overlaps(low, high, told)),
    "reaches": _Kind("published {}", 2, lambda low, at, high, told: low > 1 and overlaps(low, high, told, 0.0)),
    "tie": _Kind("claimed to be about 1", 0, lambda low, at, high, told: _ties(low, high)),
    # Two builds of one thing differ by fractions of a percent: that is not the difference claimed.
    "near": _Kind("published {}", 1, lambda low, at, high, told: low > 1 and abs(at - told[0]) <= EQUALITY),
    # Any figures.
    "above": _Kind("claimed to be above {}", 0, lambda low, at, high, told: low > told[0]),
    "below": _Kind("claimed to be below {}", 0, lambda low, at, high, told: high < told[0]),
    "at_least": _Kind("claimed to be at least {}", 0, lambda low, at, high, told: low >= told[0]),
    "at_most": _Kind("claimed to be at most {}", 0, lambda low, at, high, told: high <= told[0]),
    "not_below": _Kind("claimed not to be below {}", 0, lambda low, at, high, told: high >= told[0]),
    # Absolute figures.
    "amount": _Kind("published {}", 1, lambda low, at, high, told: overlaps(low, high, told)),
    "count": _Kind("published {}", 1, lambda low, at, high, told: abs(at - told[0]) <= _COUNT_TOLERANCE),
    "slope": _Kind("published {}", 1, lambda low, at, high, told: _same_slope(low, high, told[0])),
}
# One kind for all figures, or one for each.
Kinds = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(as_list)]


class Judged(NamedTuple):
    """A figure, its words, whether the claim holds for it, and whether it would for another value in its interval."""

    figure: Contrast
    words: str
    holds: bool
    is_open: bool


class Rule(Entry, abc.ABC):
    """How one claim is judged: what is read, which is up to the rules that inherit, and what is claimed of it.

    Attributes:
        where: The cells.
        kind: What is claimed of the figures, by the names of `KINDS`.
        figures: The published ones.
        show: Which figure is the claim's: the last, the last or the first that does not hold, an extreme one, or none.
        judged: Whether each figure has to hold, or the shown one alone, or most of them.
        defect: Why the published figure is of other functions than it names, or of other software; empty if it is not.
        note: What else a reader must know.
        only_on: Back end whose rows alone settle it; empty for any.
        explains: Whether the claim explains a time: no row settles that, but what it explains has to be there.
    """

    where: Scope
    kind: Kinds
    figures: tuple[float, ...] = ()
    show: Show = "failing"
    judged: Literal["each", "shown", "most"] = "each"
    defect: str = ""
    note: str = ""
    only_on: Literal["", "metal", "cpu"] = ""
    explains: bool = False

    @model_validator(mode="after")
    def _has_figures(self) -> Self:
        for kind in self.kind:
            require(kind in KINDS, "kind", "be one", kind, allowed=KINDS)
            needed = KINDS[kind].needs
            require(len(self.figures) >= needed, "figures", f"be {needed} for {kind}", list(self.figures))
        return self

    @abc.abstractmethod
    def read(self, measurements: Measurements) -> Reading:
        """What the rows say.

        Raises:
            MissingRowsError: If they say nothing.
        """

    def judge(self, reading: Reading) -> list[Judged]:
        """Each figure, judged.

        Raises:
            MissingRowsError: If one should have an interval, and has none.
        """
        each_its_own = self.kind == ("figure",) and 1 < len(self.figures) == len(reading.figures)
        judged = []
        for index, (name, figure) in enumerate(reading.figures):
            holds = KINDS[self.kind[index % len(self.kind)]].holds
            told = self.figures[index : index + 1] if each_its_own else self.figures or (1.0,)
            low, high = (figure.value,) * 2 if reading.counted and figure.low is None else known(figure)
            held = holds(low, figure.value, high, told)
            inside = [min(max(value, low), high) for value in (low, high, 1.0, told[0])]
            is_open = not held and any(holds(value, value, value, told) for value in inside)
            judged.append(Judged(figure, f"{name}: {with_interval(figure, reading.form)}", held, is_open))
        return judged

    def shown(self, judged: Sequence[Judged]) -> Judged | None:
        """The figure that is the claim's."""
        if not judged or self.show == "none":
            return None
        if self.show in ("failing", "last"):
            return next((each for each in judged if self.show == "failing" and not each.holds), judged[-1])
        if self.show == "least":
            return min(judged, key=lambda each: each.figure.value)
        centre = (self.figures or (1.0,))[0]
        away = self.show == "farthest"
        return max(judged, key=lambda each: abs(each.figure.value - centre) if away else each.figure.value)


class Claim(Entry):
    """A published statement.

    Attributes:
        id: Names it, for good.
        source: Who states it.
        statement: What it says, in a sentence.
        published: Its figure, as printed.
        on_apple: Whether it is about Apple's GPU: False where it is of another device, or the same on any.
        judge: By which rule.
    """

    id: str
    source: str
    statement: str
    published: str
    on_apple: bool = True
    judge: Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim and what the rows say of it.

    Attributes:
        claim: The claim.
        verdict: On it.
        ours: Our figures, in words.
        value: Our figure in the claim's own terms, with `low` and `high`, the ends of its 95 % interval; None: none.
        reason: Why the verdict, and what else a reader must know.
        identities: Of the rows used.
    """

    claim: Claim
    verdict: Verdict
    ours: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    identities: tuple[str, ...] = ()


def known(found: Contrast) -> tuple[float, float]:
    """Both ends of an interval.

    Raises:
        MissingRowsError: If there is none, because there was one sample only.
    """
    if found.low is None or found.high is None:
        raise MissingRowsError("a single sample has no interval")
    return found.low, found.high


def with_interval(found: Contrast, form: str = "{:.2f}x") -> str:
    """A figure and its 95 % interval, where it has one, in words."""
    ends = [form.format(end) for end in (found.low, found.high) if end is not None]
    return form.format(found.value) + (f" ({' to '.join(ends)})" if ends else "")


def overlaps(low: float, high: float, told: Sequence[float], tolerance: float = FIGURE_TOLERANCE) -> bool:
    """Whether an interval overlaps a published figure, or the range between two, give or take a tolerance."""
    return low <= told[-1] * (1 + tolerance) and high >= told[0] * (1 - tolerance)


def _same_ratio(low: float, high: float, published: float) -> bool:
    """A ratio within 2 % of 1 claims a tie, any other a difference: the interval has to lie on its side of 1."""
    if abs(published - 1) <= EQUALITY:
        return _ties(low, high)
    return overlaps(low, high, (published,)) and (low > 1 if published > 1 else high < 1)


def _ties(low: float, high: float) -> bool:
    return low >= 1 - FIGURE_TOLERANCE and high <= 1 + FIGURE_TOLERANCE


def _same_slope(low: float, high: float, published: float) -> bool:
    return low <= published + SLOPE_TOLERANCE and high >= published - SLOPE_TOLERANCE
