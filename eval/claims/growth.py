"""Rules about growth with the length: exponents, elbows, and the length from which on something is faster."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

from eval.claims.claim import MissingRowsError
from eval.claims.evidence import Evidence, Series, Where, identities
from eval.claims.ratios import at_lengths
from eval.claims.rule import Outcome, Rule, with_interval
from eval.claims.verdict import FIGURE_TOLERANCE, SLOPE_TOLERANCE, in_range, known, same_figure, same_slope
from eval.query import Pair
from eval.statistics.intervals import MIN_BOOTSTRAP_SAMPLES, contrast, logarithms
from eval.statistics.ratios import unpaired_ratio
from eval.statistics.scaling import Crossover, crossover, scaling_exponent

# A line of a published table: lengths and seconds.
Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slope(Rule):
    """Time as a power of the length.

    Attributes:
        figure: The published exponent.
        line: Of the source's own table, if its text is judged by that; None: it is judged by rows.
        series: Whose rows.
        where: Their cells.
        lengths: All of them.
    """

    figure: float
    line: Line | None = None
    series: Series | None = None
    where: Where
    lengths: tuple[int, ...] = ()

    def outcome(self, evidence: Evidence) -> Outcome:
        if self.line is not None:
            slope = scaling_exponent(self.line["lengths"], [[each] for each in self.line["seconds"]]).value
            return Outcome(
                held=same_slope(slope, slope, self.figure),
                ours=f"{slope:.2f} by least squares from the printed milliseconds",
                value=slope,
                reason=f"Computed from the document's own table; the text says {self.figure}. Single means have no "
                "interval.",
            )
        assert self.series is not None, "a slope is of a line or of rows"
        rows = [evidence.timed(self.where.at(length), self.series) for length in self.lengths]
        found = scaling_exponent(self.lengths, [row.samples for row in rows])
        low, high = known(found.low, found.high)
        return Outcome(
            held=same_slope(low, high, self.figure),
            ours=with_interval(found.value, low, high),
            value=found.value,
            low=low,
            high=high,
            reason=f"N = {self.lengths[0]} to {self.lengths[-1]}, published {self.figure} give or take "
            f"{SLOPE_TOLERANCE}.",
            evidence=tuple(row.identity for row in rows),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(Rule):
    """How many times as long the last of some lengths takes as the one before."""

    series: Series
    where: Where
    lengths: tuple[int, ...]
    figure: float

    def outcome(self, evidence: Evidence) -> Outcome:
        rows = [evidence.timed(self.where.at(length), self.series) for length in self.lengths]
        steps = [unpaired_ratio(after.samples, before.samples) for before, after in itertools.pairwise(rows)]
        low, high = known(steps[-1].low, steps[-1].high)
        named = zip(itertools.pairwise(self.lengths), steps, strict=True)
        return Outcome(
            held=same_figure(low, high, self.figure),
            ours="; ".join(
                f"N={a} to {b}: {with_interval(each.ratio, each.low, each.high)}x" for (a, b), each in named
            ),
            value=steps[-1].ratio,
            low=low,
            high=high,
            evidence=tuple(row.identity for row in rows),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bend(Rule):
    """A product of powers of times, such as one step over another, against 1.

    Attributes:
        terms: A series, a length and a power each.
        where: The cells.
        side: Of 1, on which it is claimed to lie.
        what: Before the figure, in words; after it stands `against`.
        against: What it is that many times of.
    """

    terms: tuple[tuple[Series, int, float], ...]
    where: Where
    side: Literal["above", "below"]
    what: str
    against: str

    def outcome(self, evidence: Evidence) -> Outcome:
        rows = [evidence.timed(self.where.at(length), series) for series, length, _ in self.terms]
        powers = [power for _, _, power in self.terms]
        found = contrast([logarithms(row.samples) for row in rows], powers).exponential
        low, high = known(found.low, found.high)
        return Outcome(
            held=low > 1 if self.side == "above" else high < 1,
            ours=f"{self.what} is {with_interval(found.value, low, high)} times {self.against}",
            value=found.value,
            low=low,
            high=high,
            reason=f"Claimed to be {self.side} 1.",
            evidence=tuple(row.identity for row in rows),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing(Rule):
    """The length from which on a series is faster than another.

    Attributes:
        series: Which is to overtake.
        baseline: Which is overtaken.
        where: The cells.
        lengths: Those that have to be there.
        range: The claimed one; none: it is claimed to be later than `after`.
        lines: Of the source's own table: of the series and of the baseline.
        beside: Another baseline, whose crossover stands beside.
        after: A series that is claimed to overtake the baseline at a shorter length.
    """

    series: Series
    baseline: Series
    where: Where
    lengths: tuple[int, ...]
    range: tuple[float, float] | None = None
    lines: tuple[Line, Line] | None = None
    beside: Series | None = None
    after: Series | None = None

    def outcome(self, evidence: Evidence) -> Outcome:
        found, pairs = self._crossover(evidence, self.series, self.baseline)
        used = identities(list(pairs.values()))
        if self.after is not None:
            other, others = self._crossover(evidence, self.after, self.baseline)
            # What is faster at short lengths crosses the other way.
            falls_behind = "short lengths" in (found.faster_at, other.faster_at)
            held = not falls_behind and _ends(found)[0] > _ends(other)[1]
            ours = f"{self.series.label}: {_words(found)}; {self.after.label}: {_words(other)}"
            reason, used = "The intervals have to lie apart.", (*identities(list(others.values())), *used)
        else:
            assert self.range is not None, "a crossover has a range, or another one to be later than"
            least, most = self.range
            # A crossing that the point estimates do not show is not reproduced, even if its interval allows one.
            shown = found.length is not None and found.faster_at == "long lengths"
            held = shown and in_range(*_ends(found), least, most)
            ours = f"{_words(found)}; {self.series.label} over {self.baseline.label}: {at_lengths(pairs)}"
            ours += "" if self.beside is None else f"; over {self.beside.label}: {self._beside(evidence, self.beside)}"
            claimed = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
            reason = f"Published {claimed}, give or take {FIGURE_TOLERANCE:.0%}{self._own()}."
        return Outcome(
            held=held, ours=ours, value=found.length, low=found.low, high=found.high, reason=reason, evidence=used
        )

    def _crossover(self, evidence: Evidence, series: Series, baseline: Series) -> tuple[Crossover, dict[int, Pair]]:
        pairs = evidence.by_length(series, baseline, self.where, self.lengths)
        above, below = ([getattr(p, side).samples for p in pairs.values()] for side in ("numerator", "denominator"))
        if min(map(len, above)) < MIN_BOOTSTRAP_SAMPLES:
            raise MissingRowsError(f"fewer than {MIN_BOOTSTRAP_SAMPLES} rounds: the crossover has no interval")
        return crossover(list(pairs), above, below), pairs

    def _beside(self, evidence: Evidence, baseline: Series) -> str:
        try:
            return _words(self._crossover(evidence, self.series, baseline)[0])
        except MissingRowsError:
            return "not measured"

    def _own(self) -> str:
        """Where the printed lines cross, by the same interpolation."""
        if self.lines is None:
            return ""
        ours, theirs = ([[each] for each in line["seconds"]] for line in self.lines)
        return (
            f"; the published table's own lines cross at {crossover(self.lines[0]['lengths'], ours, theirs).length:.0f}"
        )


def _ends(found: Crossover) -> tuple[float, float]:
    """The interval; open ends are 0 and infinity."""
    if found.length is None and found.low is None and found.high is None:
        return (0.0, 0.0) if found.faster_at == "every length" else (math.inf, math.inf)
    if found.faster_at == "every length":
        return 0.0, math.inf if found.high is None else found.high
    return 0.0 if found.low is None else found.low, math.inf if found.high is None else found.high


def _words(found: Crossover) -> str:
    low = "below the shortest" if found.low is None else f"{found.low:.0f}"
    high = "beyond the longest" if found.high is None else f"{found.high:.0f}"
    if found.length is None:
        bounds = "" if found.low is None and found.high is None else f" (95 %: {low} to {high})"
        return f"none, faster at {found.faster_at}{bounds}"
    return f"N = {found.length:.0f} (95 %: {low} to {high}), faster at {found.faster_at}"
