"""Claims about which mechanism is the fastest at which length."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Pair, Series, samples, timing_of
from eval.claims.published import table
from eval.claims.ratios import AVERAGED, UNTRANSPOSED
from eval.claims.series import CAUSAL_CUMSUM, FORWARD, FUSED, GQA, LINEAR, MANUAL, MQA, TILED, block_sparse, window
from eval.claims.verdict import known, verdict
from eval.rows import Row
from eval.statistics.contrasts import contrast, logarithms

# The published field, and MLX's fused attention; a window masks whatever is outside, so that its widths are equal work.
FIELD = (
    MANUAL,
    FUSED,
    GQA,
    MQA,
    window("gather_slices"),
    window("masked", 32),
    window("masked", 64),
    window("masked", 128),
    block_sparse(32),
    block_sparse(64),
    LINEAR,
    CAUSAL_CUMSUM,
)
IMPLEMENTATIONS = (MANUAL, FUSED, TILED)
RANKED = "Different functions are ranked, by design: what each is worth is told by the quality rows."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """One of a field.

    Attributes:
        series: Which.
        row: Timed in the rounds that all of the field share.
        link: Of what ran in rounds of its own: its pair with what `row` holds.
    """

    series: Series
    row: Row
    link: Pair | None = None

    @property
    def seconds(self) -> float:
        """Median; with a link, as many times the shared rounds' as it took times the other's in its own rounds."""
        factor = 1.0 if self.link is None else self.link.ratio.ratio
        return factor * timing_of(self.row).median_seconds

    @property
    def rows(self) -> tuple[Row, ...]:
        """All that it rests on."""
        return (self.row,) if self.link is None else (self.row, self.link.numerator, self.link.denominator)

    def ties(self, other: "Contender") -> bool:
        """Whether the interval of the ratio to another holds 1."""
        parts, weights = [], []
        if self.row is not other.row:
            pairs = zip(samples(self.row), samples(other.row), strict=True)
            parts.append(logarithms([mine / theirs for mine, theirs in pairs]))
            weights.append(1.0)
        for contender, weight in ((self, 1.0), (other, -1.0)):
            if contender.link is not None:
                parts.append(logarithms(contender.link.ratios))
                weights.append(weight)
        ratio = contrast(parts, weights).exponential
        low, high = known(ratio.low, ratio.high)
        return low <= 1 <= high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Podium:
    """The fastest of a field at one length.

    Attributes:
        fastest: The series with the lowest median.
        tied: The others whose paired ratio to the fastest has an interval with 1 in it.
        size: How many series there are.
        rows: Of the whole field.
    """

    fastest: str
    tied: tuple[str, ...]
    size: int
    rows: tuple[Row, ...]

    @property
    def best(self) -> set[str]:
        """The fastest and those that tie with it."""
        return {self.fastest, *self.tied}

    def __str__(self) -> str:
        return self.fastest + (f" (tied: {', '.join(self.tied)})" if self.tied else "")


def podium(evidence: Evidence, field: Sequence[Series], length: int, needed: Sequence[Series]) -> Podium:
    """The fastest of those that were timed in one group, unfused MHA's.

    Raises:
        MissingRowsError: If one of the needed series has no times, or there is a single round.
    """
    found = []
    for series in field:
        try:
            found.append(_contender(evidence, series, length))
        except MissingRowsError:
            if series in needed:
                raise
    first = min(found, key=lambda contender: contender.seconds)
    if len(samples(first.row)) < 2:
        raise MissingRowsError("a single sample has no interval")
    tied = tuple(each.series.label for each in found if each is not first and each.ties(first))
    rows = {row.identity: row for each in found for row in each.rows}
    return Podium(fastest=first.series.label, tied=tied, size=len(found), rows=tuple(rows.values()))


def _contender(evidence: Evidence, series: Series, length: int) -> Contender:
    setting = FORWARD.at(length)
    # What is causal was timed against the same mechanism without its mask, in rounds of their own.
    link = evidence.pair(series, LINEAR, setting) if series is CAUSAL_CUMSUM else None
    shared = evidence.pair(series if link is None else LINEAR, MANUAL, setting)
    return Contender(series=series, row=shared.numerator, link=link)


def _best(length: int, claimed: Series, defect: str | None) -> Callable[[Evidence], Judgement]:
    """Judges whether one is the fastest, every other one's interval being apart from it."""

    def judge(evidence: Evidence) -> Judgement:
        found = podium(evidence, FIELD, length, (MANUAL, FUSED, claimed))
        held = verdict(found.fastest == claimed.label and not found.tied)
        reason = f"Claimed: {claimed.label}. {RANKED}"
        if claimed.label in found.best and found.tied:
            reason += f" Undecided: ties with {', '.join(sorted(found.best - {claimed.label}))}."
        return Judgement(
            verdict=held if defect is None else "different functions compared",
            ours=f"{found}, of {found.size} mechanisms and settings",
            reason=reason if defect is None else f"{defect} Like for like: {held}. {reason}",
            evidence=tuple(row.identity for row in found.rows),
        )

    return judge


def _none_dominates(
    field: Sequence[Series], needed: Sequence[Series], statement: str
) -> Callable[[Evidence], Judgement]:
    """Judges whether nothing is the fastest, or tied with it, at every published length."""

    def judge(evidence: Evidence) -> Judgement:
        found = {length: podium(evidence, field, length, needed) for length in table.LENGTHS}
        always = set.intersection(*(each.best for each in found.values()))
        return Judgement(
            verdict=verdict(not always),
            ours="; ".join(f"N={length}: {each}" for length, each in found.items()),
            reason=statement + (f" Best or tied at every length: {', '.join(sorted(always))}." if always else ""),
            evidence=tuple(dict.fromkeys(row.identity for each in found.values() for row in each.rows)),
        )

    return judge


SAME_WORK = "The three masked windows are the same work here and there; the published 29 % between them is noise."

JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "best-128": _best(128, GQA, UNTRANSPOSED),
    "best-256": _best(256, window("masked", 128), SAME_WORK),
    "best-512": _best(512, MQA, None),
    "best-1024": _best(1024, block_sparse(32), AVERAGED),
    "none-dominates": _none_dominates(
        FIELD,
        (MANUAL, FUSED, GQA, MQA, block_sparse(32), LINEAR),
        f"Over the published field and fused MHA, speed alone. {RANKED}",
    ),
    "adaptive": _none_dominates(
        IMPLEMENTATIONS, (MANUAL, FUSED), "Over the implementations of softmax attention: one function throughout."
    ),
}
