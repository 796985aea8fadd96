"""Rules about growth with the length: exponents, elbows, and the length from which on something is faster."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from eval.claims.claim import (
    FIGURE_TOLERANCE,
    SLOPE_TOLERANCE,
    Outcome,
    Rule,
    in_range,
    known,
    point,
    same_figure,
    same_side,
    same_slope,
    with_interval,
)
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where, identities
from eval.claims.ratios import at_lengths
from eval.query import Pair
from eval.statistics import (
    MIN_BOOTSTRAP_SAMPLES,
    Contrast,
    Crossover,
    contrast,
    crossover,
    logarithms,
    scaling_exponent,
)

# A line of a published table: lengths and seconds.
Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slope(Rule):
    """Time as a power of the length, or a ratio of times, which is claimed to grow.

    Attributes:
        figure: The published exponent; None: above 0.
        line: Of the source's own table, if its text is judged by that; None: it is judged by rows.
        series: Whose rows.
        over: Whose rows are below, of a ratio.
        where: Their cells.
        lengths: All of them.
    """

    figure: float | None = None
    line: Line | None = None
    series: Series | None = None
    over: Series | None = None
    where: Where
    lengths: tuple[int, ...] = ()

    def outcome(self, measurements: Measurements) -> Outcome:
        if self.line is not None:
            slope = scaling_exponent(self.line["lengths"], [[each] for each in self.line["seconds"]]).value
            return Outcome(
                held=same_slope(Contrast(value=slope, low=slope, high=slope), self.figure or 0.0),
                ours=f"{slope:.2f} by least squares from the printed milliseconds",
                figure=point(slope),
                reason=f"Computed from the document's own table; the text says {self.figure}. Single means have no "
                "interval.",
            )
        assert self.series is not None, "a slope is of a line or of rows"
        if self.over is not None:
            pairs = measurements.by_length(self.series, self.over, self.where, self.lengths)
            found = scaling_exponent(list(pairs), [pair.ratios for pair in pairs.values()])
            listed, used = f"{at_lengths(pairs)}; slope ", identities(pairs.values())
        else:
            rows = measurements.timed_at(self.lengths, self.where, self.series)
            found = scaling_exponent(self.lengths, [row.samples for row in rows])
            listed, used = "", tuple(row.identity for row in rows)
        published = (
            f"N = {self.lengths[0]} to {self.lengths[-1]}, published {self.figure} give or take {SLOPE_TOLERANCE}."
        )
        grows = "The ratio grows with the power of N that stands here; above 0 is growth."
        return Outcome(
            held=known(found)[0] > 0 if self.figure is None else same_slope(found, self.figure),
            ours=listed + with_interval(found),
            figure=found,
            reason=grows if self.figure is None else published,
            evidence=used,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product(Rule):
    """A product of powers of times, such as one step over another.

    Attributes:
        terms: A series, a length and a power each.
        where: The cells.
        figure: The published one; None: it is claimed to lie on a side of 1.
        above: Whether above.
        what: Before the figure, in words.
        against: What it is that many times of, after it.
    """

    terms: tuple[tuple[Series, int, float], ...]
    where: Where
    figure: float | None = None
    above: bool = True
    what: str
    against: str = ""

    def outcome(self, measurements: Measurements) -> Outcome:
        rows = [measurements.timed(self.where.at(length), series) for series, length, _ in self.terms]
        powers = [power for _, _, power in self.terms]
        found = contrast([logarithms(row.samples) for row in rows], powers).exponential
        claimed = f"Claimed to be {'above' if self.above else 'below'} 1."
        return Outcome(
            held=same_side(found, above=self.above) if self.figure is None else same_figure(found, self.figure),
            ours=f"{self.what} is {with_interval(found)} times {self.against}".rstrip(),
            figure=found,
            reason=claimed if self.figure is None else f"Published {self.figure}.",
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

    def outcome(self, measurements: Measurements) -> Outcome:
        found, pairs = self._crossover(measurements, self.series, self.baseline)
        used = identities(pairs.values())
        if self.after is not None:
            other, others = self._crossover(measurements, self.after, self.baseline)
            # What is faster at short lengths crosses the other way.
            falls_behind = "short lengths" in (found.faster_at, other.faster_at)
            held = not falls_behind and _ends(found)[0] > _ends(other)[1]
            ours = f"{self.series.label}: {_words(found)}; {self.after.label}: {_words(other)}"
            reason, used = "The intervals have to lie apart.", (*identities(others.values()), *used)
        else:
            assert self.range is not None, "a crossover has a range, or another one to be later than"
            least, most = self.range
            # A crossing that the point estimates do not show is not reproduced, even if its interval allows one.
            shown = found.length is not None and found.faster_at == "long lengths"
            low, high = _ends(found)
            held = shown and in_range(Contrast(value=found.length or 0.0, low=low, high=high), least, most)
            ours = f"{_words(found)}; {self.series.label} over {self.baseline.label}: {at_lengths(pairs)}"
            ours += (
                "" if self.beside is None else f"; over {self.beside.label}: {self._beside(measurements, self.beside)}"
            )
            claimed = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
            reason = f"Published {claimed}, give or take {FIGURE_TOLERANCE:.0%}{self._own()}."
        return Outcome(held=held, ours=ours, figure=found, reason=reason, evidence=used)

    def _crossover(
        self, measurements: Measurements, series: Series, baseline: Series
    ) -> tuple[Crossover, dict[int, Pair]]:
        pairs = measurements.by_length(series, baseline, self.where, self.lengths)
        above, below = ([getattr(p, side).samples for p in pairs.values()] for side in ("numerator", "denominator"))
        if min(map(len, above)) < MIN_BOOTSTRAP_SAMPLES:
            raise MissingRowsError(f"fewer than {MIN_BOOTSTRAP_SAMPLES} rounds: the crossover has no interval")
        return crossover(list(pairs), above, below), pairs

    def _beside(self, measurements: Measurements, baseline: Series) -> str:
        try:
            return _words(self._crossover(measurements, self.series, baseline)[0])
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
    never = math.inf if found.faster_at != "every length" else 0.0
    if found.length is None and found.low is None and found.high is None:
        return never, never
    low = 0.0 if found.low is None or found.faster_at == "every length" else found.low
    return low, math.inf if found.high is None else found.high


def _words(found: Crossover) -> str:
    low = "below the shortest" if found.low is None else f"{found.low:.0f}"
    high = "beyond the longest" if found.high is None else f"{found.high:.0f}"
    if found.length is None:
        bounds = "" if found.low is None and found.high is None else f" (95 %: {low} to {high})"
        return f"none, faster at {found.faster_at}{bounds}"
    return f"N = {found.length:.0f} (95 %: {low} to {high}), faster at {found.faster_at}"
