"""Rules that compare series: by ratios of their times, by where those pass 1, and by which series is the fastest."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from eval.claims.claim import ELSEWHERE, FIGURE_TOLERANCE, Kinds, Reading, Rule, known, overlaps, with_interval
from eval.claims.measurements import (
    Entry,
    Measurements,
    MissingRowsError,
    NamedLine,
    NamedSeries,
    Series,
    SomeSeries,
    Where,
    rows_of,
)
from eval.query import Measured, Pair, grouped
from eval.statistics import MIN_BOOTSTRAP_SAMPLES, Contrast, Crossover, contrast, crossover, logarithms
from zoo.config.errors import require


class Beside(Entry):
    """A further ratio to state, at the claim's own last length."""

    above: NamedSeries
    below: NamedSeries
    mode: str | None = None

    def words(self, measurements: Measurements, where: Where) -> str:
        """The ratio, or that it was not measured."""
        there = where.model_copy(update={"mode": self.mode or where.mode})
        try:
            figure = with_interval(measurements.pairs(self.above, self.below, there)[0].ratio)
        except MissingRowsError:
            figure = "not measured"
        place = ", ".join(filter(None, (there.mode, f"N={there.length}" if there.length else "")))
        return f"{self.above.label} over {self.below.label} ({place}): {figure}"


class Ratio(Rule):
    """One series' time over another's, at some lengths or in every cell."""

    above: SomeSeries = Field(description="whose time is above; of several, each")
    below: SomeSeries = Field(description="whose time is below; of several, each")
    lengths: tuple[int, ...] = Field((), description="each of them has to be there; none: every pair that there is")
    other_lengths: bool = Field(False, description="whether others count as well, where they are there")
    beside: tuple[Beside, ...] = Field((), description="further ratios to state")
    first_call: bool = Field(False, description="whether to state how much slower the numerator's first call is")
    noise: bool = Field(False, description="whether to state the largest ratio of an A/A control")
    own_target: float | None = Field(None, description="what this library promises of the ratio")

    def read(self, measurements: Measurements) -> Reading:
        """The ratio of each pair."""
        pairs: dict[str, Pair] = {}
        for above, below in itertools.product(self.above, self.below):
            several = len(self.above) + len(self.below) > 2
            prefix = f"{above.label} over {below.label}, " if several else ""
            if self.lengths:
                found = measurements.by_length(above, below, self.where, self.lengths)
                asked = found if self.other_lengths else self.lengths
                pairs |= {f"{prefix}N={length}": found[length] for length in asked}
            else:
                pairs |= {prefix + each.cell.group: each for each in measurements.pairs(above, below, self.where)}
        of = " over ".join(" and ".join(each.label for each in some) for some in (self.above, self.below))
        figures = [(name, pair.ratio) for name, pair in pairs.items()]
        beside = self._beside(measurements, list(pairs.values()))
        return Reading(figures=figures, of=of, beside=beside, rows=rows_of(pairs.values()))

    def _beside(self, measurements: Measurements, pairs: Sequence[Pair]) -> list[str]:
        where = self.where.at(self.lengths[-1]) if self.lengths else self.where
        texts = [each.words(measurements, where) for each in self.beside]
        if self.first_call:
            times = pairs[-1].numerator.times
            cold = times.first_call_seconds / times.median_seconds
            texts.append(f"the baseline's first call takes {cold:.1f} times its median")
        if self.noise:
            controls = [pair.ratio.value for pair in measurements.controls(self.where)]
            largest = f"largest ratio of an A/A control {max(controls, default=1):.2f}x over {len(controls)}"
            texts.append(largest if controls else "no A/A control")
        if self.own_target is not None:
            ends = [known(pair.ratio) for pair in pairs]
            met = sum(high <= self.own_target for _, high in ends)
            missed = sum(low > self.own_target for low, _ in ends)
            target = f"this library's own target, a ratio of at most {self.own_target}"
            texts.append(f"{target}, is met in {met} and missed in {missed} of {len(pairs)} cells")
        return texts


class Mean(Rule):
    """The geometric mean of one series' time over another's, over all cells, or how it falls along an axis.

    A mean that falls is the largest at the axis' least value and the smallest at its greatest; our figure is then the
    first over the last.
    """

    above: NamedSeries = Field(description="whose time is above")
    below: NamedSeries | None = Field(None, description="whose is below; none: A/A controls over what they repeat")
    falls_along: Literal["head_dim", "length", "batch_size"] | None = Field(None, description="a cell's field")

    def read(self, measurements: Measurements) -> Reading:
        """The mean, or its fall."""
        for each in measurements.find(self.where, self.above):
            if each.row.status == "unavailable":
                beside = ["a row without times, and no silent fallback"]
                return Reading(holds=ELSEWHERE, beside=beside, reason=f"{each.row.reason}", rows=[each])
        if self.below is None:
            pairs, of = measurements.controls(self.where), "A/A controls over what they repeat"
        else:
            pairs = measurements.pairs(self.above, self.below, self.where)
            of = f"{self.above.label} over {self.below.label}"
        if not pairs:
            raise MissingRowsError(f"no A/A control ({self.where})")
        rows, axis = rows_of(pairs), self.falls_along
        if axis is None:
            return Reading(figures=[(f"geometric mean of {len(pairs)} cells", _mean(pairs))], of=of, rows=rows)
        groups = dict(sorted(grouped(pairs, lambda pair: int(getattr(pair.cell, axis))).items()))
        if len(groups) < 2:
            raise MissingRowsError(f"one {axis} only ({self.where})")
        means = {place: _mean(group) for place, group in groups.items()}
        values = [mean.value for mean in means.values()]
        first, *_, last = groups
        name = f"{axis} {first} over {last}"
        return Reading(
            figures=[(name, _mean(groups[first], groups[last]))],
            of=f"{of}, {name}",
            holds=values[0] == max(values) and values[-1] == min(values),
            beside=[f"{axis} {place}: {with_interval(mean)}" for place, mean in means.items()],
            reason="The first mean has to be the largest, the last the smallest.",
            rows=rows,
        )


def _mean(pairs: Sequence[Pair], over: Sequence[Pair] = ()) -> Contrast:
    """Geometric mean of the ratios, over that of others."""
    weights = [1 / len(pairs)] * len(pairs) + [-1 / len(over) for _ in over]
    return contrast([logarithms(pair.ratios) for pair in (*pairs, *over)], weights).exponential


class Crossing(Rule):
    """The length from which on a series is faster than another, within the published ones give or take 10 %."""

    kind: Kinds = ("any",)
    series: SomeSeries = Field(description="which overtakes; of two, the first has to overtake later than the second")
    baseline: NamedSeries = Field(description="which is overtaken")
    lengths: tuple[int, ...] = Field(min_length=2, description="those that have to be there")
    lines: tuple[NamedLine, NamedLine] | None = Field(None, description="the source's own, of series and baseline")
    beside: NamedSeries | None = Field(None, description="another baseline, whose crossover stands beside")

    @model_validator(mode="after")
    def _has_a_claim(self) -> Self:
        claims = bool(self.figures) + len(self.series)
        require(claims == 2, "a crossing", "have one series and figures, or two series", f"{len(self.series)} series")
        return self

    def read(self, measurements: Measurements) -> Reading:
        """Where they cross, held against the published lengths or the other crossing."""
        crossed = [self._crossover(measurements, series, self.baseline) for series in self.series]
        found, last = crossed[0][0], crossed[-1][0]
        beside = [f"{series.label}: {words}" for series, (_, words, _) in zip(self.series, crossed, strict=True)]
        if self.figures:
            # A crossing that the point estimates do not show is not reproduced, even if its interval allows one.
            shown = found.length is not None and found.faster_at == "long lengths"
            holds = shown and overlaps(*_ends(found), self.figures)
            published = " to ".join(f"{length:.0f}" for length in self.figures)
            reason = f"Published {published}, give or take {FIGURE_TOLERANCE:.0%}{self._own()}."
        else:
            # What is faster at short lengths crosses the other way.
            falls_behind = "short lengths" in (found.faster_at, last.faster_at)
            holds, reason = not falls_behind and _ends(found)[0] > _ends(last)[1], "The intervals have to lie apart."
        if self.beside is not None:
            try:
                _, other, _ = self._crossover(measurements, self.series[0], self.beside)
            except MissingRowsError:
                other = "not measured"
            beside.append(f"over {self.beside.label}: {other}")
        rows = [row for *_, own in crossed for row in own]
        return Reading(own=found, holds=holds, beside=beside, reason=reason, rows=rows)

    def _crossover(
        self, measurements: Measurements, series: Series, baseline: Series
    ) -> tuple[Crossover, str, list[Measured]]:
        """Where they cross, the same in words, and the rows."""
        pairs = measurements.by_length(series, baseline, self.where, self.lengths)
        above = [pair.numerator.samples for pair in pairs.values()]
        below = [pair.denominator.samples for pair in pairs.values()]
        if min(map(len, above)) < MIN_BOOTSTRAP_SAMPLES:
            raise MissingRowsError(f"fewer than {MIN_BOOTSTRAP_SAMPLES} rounds: the crossover has no interval")
        found = crossover(list(pairs), above, below)
        low = "below the shortest" if found.low is None else f"{found.low:.0f}"
        high = "beyond the longest" if found.high is None else f"{found.high:.0f}"
        where = "none" if found.length is None else f"N = {found.length:.0f}"
        if (found.length, found.low, found.high) != (None, None, None):
            where += f" (95 %: {low} to {high})"
        ratios = "; ".join(f"N={length}: {with_interval(pair.ratio)}" for length, pair in pairs.items())
        return found, f"{where}, faster at {found.faster_at} ({ratios})", rows_of(pairs.values())

    def _own(self) -> str:
        """Where the printed lines cross, by the same interpolation."""
        if self.lines is None:
            return ""
        ours, theirs = ([[seconds] for seconds in line.values()] for line in self.lines)
        where = crossover(list(self.lines[0]), ours, theirs).length
        return f"; the published table's own lines cross at {where:.0f}"


def _ends(found: Crossover) -> tuple[float, float]:
    """The interval; open ends are 0 and infinity."""
    never = math.inf if found.faster_at != "every length" else 0.0
    if found.length is None and found.low is None and found.high is None:
        return never, never
    low = 0.0 if found.low is None or found.faster_at == "every length" else found.low
    return low, math.inf if found.high is None else found.high


class Ranking(Rule):
    """Which is the fastest, every other one's interval being apart from it; or that none is at every length."""

    kind: Kinds = ("any",)
    field: SomeSeries = Field(description="who competes")
    shared: NamedSeries = Field(description="whose rounds all share")
    linked: tuple[tuple[NamedSeries, NamedSeries], ...] = Field(
        (), description="of what was timed in rounds of its own, with whom of the field"
    )
    needed: SomeSeries = Field(description="who has to be there")
    lengths: tuple[int, ...] = Field(min_length=1, description="all of them; one, where one is claimed to be fastest")
    claimed: NamedSeries | None = Field(None, description="the fastest; none: no one is, or ties, at every length")

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
            rows += [row for each in field for row in (each.timed, *rows_of(each.links))]
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
        where, partners, found = self.where.at(length), {one.label: two for one, two in self.linked}, []
        for series in self.field:
            other = partners.get(series.label)
            try:
                links = measurements.pairs(series, other, where)[:1] if other else []
                shared = measurements.pairs(other or series, self.shared, where)[0]
            except MissingRowsError:
                if series in self.needed:
                    raise
                continue
            found.append(_Contender(series.label, shared.numerator, links))
        return found


class _Contender(NamedTuple):
    """One of a field, timed in the rounds that all share; or linked by its ratio to what was timed there."""

    label: str
    timed: Measured
    links: Sequence[Pair]


def _seconds(contender: _Contender) -> float:
    return contender.timed.times.median_seconds * math.prod(link.ratio.value for link in contender.links)


def _ties(one: _Contender, other: _Contender) -> bool:
    """Whether the interval of the ratio of two holds 1."""
    terms = [(link.ratios, 1.0) for link in one.links] + [(link.ratios, -1.0) for link in other.links]
    if one.timed.identity != other.timed.identity:
        terms.insert(0, (Pair(numerator=one.timed, denominator=other.timed).ratios, 1.0))
    ratio = contrast([logarithms(ratios) for ratios, _ in terms], [weight for _, weight in terms]).exponential
    low, high = known(ratio)
    return low <= 1 <= high
