"""Rules over lengths: from where on one series is faster than another, and which is the fastest at each."""

import math
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from eval.claims.claim import FIGURE_TOLERANCE, Kinds, Reading, Rule, known, overlaps, with_interval
from eval.claims.measurements import Measurements, MissingRowsError, NamedLine, NamedSeries, Series, SomeSeries, rows_of
from eval.query import Measured, Pair
from eval.statistics import MIN_BOOTSTRAP_SAMPLES, Crossover, contrast, crossover, logarithms
from zoo.config.errors import require


class Crossing(Rule):
    """The length from which on a series is faster than another, within the published ones give or take 10 %.

    Attributes:
        series: Which is to overtake; of two, the first has to overtake later than the second.
        baseline: Which is overtaken.
        lengths: Those that have to be there.
        lines: Of the source's own table: of the series and of the baseline.
        beside: Another baseline, whose crossover stands beside.
    """

    kind: Kinds = ("any",)
    series: SomeSeries
    baseline: NamedSeries
    lengths: tuple[int, ...] = Field(min_length=2)
    lines: tuple[NamedLine, NamedLine] | None = None
    beside: NamedSeries | None = None

    @model_validator(mode="after")
    def _has_a_claim(self) -> Self:
        claims = bool(self.figures) + len(self.series)
        require(claims == 2, "a crossing", "have one series and figures, or two series", f"{len(self.series)} series")
        return self

    def read(self, measurements: Measurements) -> Reading:
        """Where they cross, held against the published lengths or the other crossing."""
        crossed = [self._crossover(measurements, series, self.baseline) for series in self.series]
        found = crossed[0][0]
        low, high = _ends(found)
        beside = [f"{series.label}: {_words(*each)}" for series, each in zip(self.series, crossed, strict=True)]
        if self.figures:
            # A crossing that the point estimates do not show is not reproduced, even if its interval allows one.
            shown = found.length is not None and found.faster_at == "long lengths"
            holds = shown and overlaps(low, high, self.figures)
            published = " to ".join(f"{length:.0f}" for length in self.figures)
            reason = f"Published {published}, give or take {FIGURE_TOLERANCE:.0%}{self._own()}."
        else:
            # What is faster at short lengths crosses the other way.
            falls_behind = any(each.faster_at == "short lengths" for each, _ in crossed)
            holds, reason = not falls_behind and low > _ends(crossed[1][0])[1], "The intervals have to lie apart."
        if self.beside is not None:
            try:
                other = _words(*self._crossover(measurements, self.series[0], self.beside))
            except MissingRowsError:
                other = "not measured"
            beside.append(f"over {self.beside.label}: {other}")
        rows = [row for _, pairs in crossed for row in rows_of(pairs.values())]
        return Reading(own=found, holds=holds, beside=beside, reason=reason, rows=rows)

    def _crossover(
        self, measurements: Measurements, series: Series, baseline: Series
    ) -> tuple[Crossover, dict[int, Pair]]:
        pairs = measurements.by_length(series, baseline, self.where, self.lengths)
        above, below = zip(
            *((pair.numerator.samples, pair.denominator.samples) for pair in pairs.values()), strict=True
        )
        if min(map(len, above)) < MIN_BOOTSTRAP_SAMPLES:
            raise MissingRowsError(f"fewer than {MIN_BOOTSTRAP_SAMPLES} rounds: the crossover has no interval")
        return crossover(list(pairs), above, below), pairs

    def _own(self) -> str:
        """Where the printed lines cross, by the same interpolation."""
        if self.lines is None:
            return ""
        ours, theirs = ([[each] for each in line["seconds"]] for line in self.lines)
        where = crossover(self.lines[0]["lengths"], ours, theirs).length
        return f"; the published table's own lines cross at {where:.0f}"


class Ranking(Rule):
    """Which is the fastest, every other one's interval being apart from it; or that none is at every length.

    Attributes:
        field: Who competes.
        shared: Whose rounds all share.
        linked: Of what was timed in rounds of its own, with whom of the field.
        needed: Who has to be there.
        lengths: All of them; one, where one is claimed to be the fastest.
        claimed: Who is said to be the fastest; None: that none is the fastest, or tied with it, at every length.
    """

    kind: Kinds = ("any",)
    field: SomeSeries
    shared: NamedSeries
    linked: tuple[tuple[NamedSeries, NamedSeries], ...] = ()
    needed: SomeSeries
    lengths: tuple[int, ...] = Field(min_length=1)
    claimed: NamedSeries | None = None

    def read(self, measurements: Measurements) -> Reading:
        """The fastest at each length, and those that tie with it."""
        best, texts, rows = [], [], []
        for length in self.lengths:
            field = self._field(measurements, length)
            first = min(field, key=_seconds)
            if len(first.timed.samples) < 2:
                raise MissingRowsError("a single sample has no interval")
            tied = [each.label for each in field if each is not first and _ties(each, first)]
            best.append({first.label, *tied})
            tie = f" (tied: {', '.join(tied)})" if tied else ""
            texts.append(f"N={length}: {first.label}{tie}, of {len(field)} mechanisms and settings")
            rows += [row for each in field for row in (each.timed, *rows_of([each.link] if each.link else []))]
        if self.claimed is None:
            always = sorted(set.intersection(*best))
            reason = f"Best or tied at every length: {', '.join(always)}." if always else ""
            return Reading(holds=not always, beside=texts, reason=reason, rows=rows)
        claimed, others = self.claimed.label, sorted(best[0] - {self.claimed.label})
        undecided = f" Undecided: ties with {', '.join(others)}." if others and claimed in best[0] else ""
        holds = best[0] == {claimed}
        return Reading(holds=holds, beside=texts, reason=f"Claimed: {claimed}.{undecided}", rows=rows)

    def _field(self, measurements: Measurements, length: int) -> list["_Contender"]:
        """All that were timed in one group."""
        where, links, found = self.where.at(length), {one.label: two for one, two in self.linked}, []
        for series in self.field:
            other = links.get(series.label)
            try:
                link = measurements.pairs(series, other, where)[0] if other else None
                shared = measurements.pairs(other or series, self.shared, where)[0]
            except MissingRowsError:
                if series in self.needed:
                    raise
                continue
            found.append(_Contender(series.label, shared.numerator, link))
        return found


class _Contender(NamedTuple):
    """One of a field, timed in the rounds that all share; or with a link, by its ratio to what was timed there."""

    label: str
    timed: Measured
    link: Pair | None


def _seconds(contender: _Contender) -> float:
    return contender.timed.times.median_seconds * (contender.link.ratio.value if contender.link else 1.0)


def _ties(one: _Contender, other: _Contender) -> bool:
    """Whether the interval of the ratio of two holds 1."""
    terms = []
    if one.timed.identity != other.timed.identity:
        terms.append(([a / b for a, b in zip(one.timed.samples, other.timed.samples, strict=True)], 1.0))
    terms += [(each.link.ratios, sign) for each, sign in ((one, 1.0), (other, -1.0)) if each.link]
    ratio = contrast([logarithms(ratios) for ratios, _ in terms], [weight for _, weight in terms]).exponential
    low, high = known(ratio)
    return low <= 1 <= high


def _ends(found: Crossover) -> tuple[float, float]:
    """The interval; open ends are 0 and infinity."""
    never = math.inf if found.faster_at != "every length" else 0.0
    if found.length is None and found.low is None and found.high is None:
        return never, never
    low = 0.0 if found.low is None or found.faster_at == "every length" else found.low
    return low, math.inf if found.high is None else found.high


def _words(found: Crossover, pairs: dict[int, Pair]) -> str:
    low = "below the shortest" if found.low is None else f"{found.low:.0f}"
    high = "beyond the longest" if found.high is None else f"{found.high:.0f}"
    where = "none" if found.length is None else f"N = {found.length:.0f}"
    if (found.length, found.low, found.high) != (None, None, None):
        where += f" (95 %: {low} to {high})"
    ratios = "; ".join(f"N={length}: {with_interval(pair.ratio)}" for length, pair in pairs.items())
    return f"{where}, faster at {found.faster_at} ({ratios})"
