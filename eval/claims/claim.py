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

from eval.claims.measurements import Entry, Measurements, MissingRowsError, Where, as_list
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
    """What a rule reads from rows: figures with their names, which say of what or where, and all rows that were used.

    `of` says what the figures are, and `form` how a number of them is printed; those without an interval are `counted`
    or summed up, or else a single sample left them without. `holds` is False, or a verdict, where something beside the
    figures settles the claim. `own` is the claim's figure where it is none of these. `beside` says what else was
    measured, and `reason` what else a reader must know.
    """

    figures: Sequence[tuple[str, Contrast]] = ()
    of: str = ""
    form: str = "{:.2f}x"
    counted: bool = False
    holds: bool | Verdict = True
    own: Crossover | None = None
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
    "slope": _Kind(
        "published {}", 1, lambda low, at, high, told: low - SLOPE_TOLERANCE <= told[0] <= high + SLOPE_TOLERANCE
    ),
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
    """How one claim is judged: what is read, which is up to the rules that inherit, and what is claimed of it."""

    where: Where = Field(description="the cells")
    kind: Kinds = Field(description="what is claimed of the figures, by the names of `KINDS`")
    figures: tuple[float, ...] = Field((), description="the published ones")
    show: Show = Field("failing", description="which figure is the claim's; failing: the first such, or else the last")
    judged: Literal["each", "shown", "most"] = Field("each", description="which figures have to hold")
    defect: str = Field(
        "", description="why the published figure is of other functions, or of other software; if it is"
    )
    note: str = Field("", description="what else a reader must know")
    only_on: Literal["", "metal", "cpu"] = Field("", description="back end whose rows alone settle it; empty for any")
    # No row settles what a time was spent on, but what is explained has to be there.
    explains: bool = Field(False, description="whether the claim explains a time")

    @model_validator(mode="after")
    def _has_figures(self) -> Self:
        for kind in self.kind:
            require(kind in KINDS, "kind", "be one", kind, allowed=KINDS)
            needed = KINDS[kind].needs
            require(len(self.figures) >= needed, "figures", f"be {needed} for {kind}", list(self.figures))
        return self

    @abc.abstractmethod
    def read(self, measurements: Measurements) -> Reading:
        """What the rows say; a MissingRowsError if they say nothing."""

    def judge(self, reading: Reading) -> list[Judged]:
        """Each figure, or the share that holds, where most have to; a MissingRowsError where an interval is missing."""
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
        if self.judged == "most":
            share = sum(each.holds for each in judged) / len(judged)
            words = f"so in {share:.0%}, undecided in {sum(each.is_open for each in judged)} of {len(judged)} cells"
            return [Judged(Contrast(value=share, low=None, high=None), words, share > 0.5, False)]
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
    """A published statement."""

    id: str = Field(description="names it, for good")
    source: str = Field(description="who states it")
    statement: str = Field(description="what it says, in a sentence")
    published: str = Field(description="its figure, as printed")
    on_apple: bool = Field(True, description="false where it is of another device than Apple's GPU, or the same on any")
    judge: Rule = Field(description="by which rule")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim, the verdict on it, our figures in words, why the verdict, and the identities of the rows used.

    `value` is our figure in the claim's own terms, `low` and `high` the ends of its 95 % interval; None: there is none.
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
    """Both ends of an interval; a MissingRowsError if there is none, because there was one sample only."""
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
