"""The rule about which of a field is the fastest at which length."""

import dataclasses

from eval.claims.claim import MissingRowsError
from eval.claims.evidence import Evidence, Series, Where
from eval.claims.rule import Outcome, Rule
from eval.claims.verdict import known
from eval.query import Measured, Pair
from eval.rows import Row
from eval.statistics.intervals import contrast, logarithms


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contender:
    """One of a field.

    Attributes:
        series: Which.
        timed: In the rounds that all of the field share.
        link: Of what ran in rounds of its own: its pair with what `timed` holds.
    """

    series: Series
    timed: Measured
    link: Pair | None = None

    @property
    def seconds(self) -> float:
        """Median; with a link, as many times the shared rounds' as it took times the other's in its own rounds."""
        factor = 1.0 if self.link is None else self.link.ratio.ratio
        return factor * self.timed.times.median_seconds

    @property
    def rows(self) -> tuple[Row, ...]:
        """All that it rests on."""
        link = () if self.link is None else (self.link.numerator.row, self.link.denominator.row)
        return (self.timed.row, *link)

    def ties(self, other: "_Contender") -> bool:
        """Whether the interval of the ratio to another holds 1."""
        parts, weights = [], []
        if self.timed.identity != other.timed.identity:
            pairs = zip(self.timed.samples, other.timed.samples, strict=True)
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
class Ranking(Rule):
    """Which is the fastest, every other one's interval being apart from it; or that none is at every length.

    Attributes:
        field: Who competes.
        shared: Whose rounds all share.
        linked: Of what was timed in rounds of its own, with whom of the field.
        needed: Who has to be there.
        where: The cells.
        lengths: All of them.
        claimed: Who is said to be the fastest; None: that none is the fastest, or tied with it, at every length.
    """

    field: tuple[Series, ...]
    shared: Series
    linked: tuple[tuple[Series, Series], ...] = ()
    needed: tuple[Series, ...]
    where: Where
    lengths: tuple[int, ...]
    claimed: Series | None = None

    def outcome(self, evidence: Evidence) -> Outcome:
        found = {length: self._podium(evidence, self.where.at(length)) for length in self.lengths}
        rows = dict.fromkeys(row.identity for _, _, field in found.values() for each in field for row in each.rows)
        texts = {
            length: fastest + (f" (tied: {', '.join(tied)})" if tied else "")
            for length, (fastest, tied, _) in found.items()
        }
        if self.claimed is None:
            always = set.intersection(*({fastest, *tied} for fastest, tied, _ in found.values()))
            return Outcome(
                held=not always,
                ours="; ".join(f"N={length}: {text}" for length, text in texts.items()),
                reason=f"Best or tied at every length: {', '.join(sorted(always))}." if always else "",
                evidence=tuple(rows),
            )
        ((fastest, tied, field),) = found.values()
        claimed, best = self.claimed.label, {fastest, *tied}
        return Outcome(
            held=fastest == claimed and not tied,
            ours=f"{texts[self.lengths[0]]}, of {len(field)} mechanisms and settings",
            reason=f"Claimed: {claimed}.",
            undecided=f"ties with {', '.join(sorted(best - {claimed}))}" if claimed in best and tied else "",
            evidence=tuple(rows),
        )

    def _podium(self, evidence: Evidence, where: Where) -> tuple[str, tuple[str, ...], list[_Contender]]:
        """The fastest, those that tie with it, and all that were timed in one group."""
        field = []
        for series in self.field:
            try:
                field.append(self._contender(evidence, series, where))
            except MissingRowsError:
                if series in self.needed:
                    raise
        first = min(field, key=lambda contender: contender.seconds)
        if len(first.timed.samples) < 2:
            raise MissingRowsError("a single sample has no interval")
        tied = tuple(each.series.label for each in field if each is not first and each.ties(first))
        return first.series.label, tied, field

    def _contender(self, evidence: Evidence, series: Series, where: Where) -> _Contender:
        other = {one.label: two for one, two in self.linked}.get(series.label)
        link = None if other is None else evidence.pair(series, other, where)
        shared = evidence.pair(series if other is None else other, self.shared, where)
        return _Contender(series=series, timed=shared.numerator, link=link)
