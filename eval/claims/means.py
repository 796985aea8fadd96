"""Rules about many cells at a time: means of ratios, rates, spreads, and which of a field is the fastest."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eval.claims.claim import (
    ELSEWHERE,
    EQUALITY,
    Outcome,
    Rule,
    in_range,
    known,
    point,
    same_figure,
    same_side,
    ties,
    with_interval,
)
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where, identities
from eval.query import Measured, Pair
from eval.rows import Row
from eval.statistics import Contrast, contrast, logarithms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Rule):
    """The geometric mean of one series' time over another's, over all cells.

    Attributes:
        above: Whose time is above.
        below: Whose time is below; None: A/A controls over what they repeat.
        where: The cells.
        kind: "figure"; "near", a small difference from 1; "tie"; or "falls": along an axis the first mean is the
            largest and the last the smallest.
        figure: The published one.
        axis: A cell's field, whose least value's mean over that of its greatest is our figure.
    """

    above: Series
    below: Series | None = None
    where: Where
    kind: Literal["figure", "near", "tie", "falls"]
    figure: float | None = None
    axis: Literal["head_dim", "length", "batch_size"] | None = None

    def outcome(self, measurements: Measurements) -> Outcome:
        unavailable = [each for each in measurements.find(self.where, self.above) if each.row.status == "unavailable"]
        if unavailable:
            row = unavailable[0].row
            ours = "a row without times, and no silent fallback"
            return Outcome(held=ELSEWHERE, ours=ours, reason=f"{row.reason}", evidence=(row.identity,))
        pairs = self._pairs(measurements)
        found = self._along_axis(pairs) if self.kind == "falls" else self._overall(pairs)
        return dataclasses.replace(found, evidence=identities(pairs))

    def _pairs(self, measurements: Measurements) -> list[Pair]:
        if self.below is not None:
            return measurements.some_pairs(self.above, self.below, self.where)
        controls = measurements.controls(self.where)
        if not controls:
            raise MissingRowsError(f"no A/A control ({self.where})")
        return controls

    def _overall(self, pairs: Sequence[Pair]) -> Outcome:
        mean = _mean(pairs)
        match self.kind:
            case "near":
                # Two builds of one thing differ by fractions of a percent: that is not the difference claimed.
                held = same_side(mean, above=True) and abs(mean.value - (self.figure or 1)) <= EQUALITY
            case "tie":
                held = ties(mean)
            case _:
                held = same_figure(mean, self.figure or 1)
        below = "" if self.below is None else self.below.label
        what = f"{self.above.label} over {below}" if below else "A/A controls, over themselves"
        return Outcome(
            held=held,
            ours=f"{with_interval(mean)}x, geometric mean of {len(pairs)} cells ({what})",
            figure=mean,
            reason="" if self.figure is None else f"Published {self.figure:.2f}.",
        )

    def _along_axis(self, pairs: Sequence[Pair]) -> Outcome:
        groups: dict[int, list[Pair]] = {}
        for pair in sorted(pairs, key=lambda pair: int(getattr(pair.cell, str(self.axis)))):
            groups.setdefault(getattr(pair.cell, str(self.axis)), []).append(pair)
        if len(groups) < 2:
            raise MissingRowsError(f"one {self.axis} only ({self.where})")
        means = {value: _mean(each) for value, each in groups.items()}
        (least, first), *_, (greatest, last) = groups.items()
        weights = [1 / len(first)] * len(first) + [-1 / len(last)] * len(last)
        gap = contrast([logarithms(pair.ratios) for pair in (*first, *last)], weights).exponential
        centres = [mean.value for mean in means.values()]
        extreme = centres[0] == max(centres) and centres[-1] == min(centres)
        return Outcome(
            held=same_side(gap, above=True) and extreme,
            ours="; ".join(f"{self.axis} {at}: {with_interval(mean)}x" for at, mean in means.items()),
            figure=gap,
            reason=f"The figure is the ratio at {least} over that at {greatest}; the rule: the first is the largest, "
            "the last the smallest, and the interval above 1.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate(Rule):
    """An absolute figure of one series.

    Attributes:
        series: Whose.
        where: The cells.
        quantity: What is read.
        of: The largest or the mean of all cells, which has no interval, or the longest cell alone, with its own.
        figure: The published one.
        model: Which the figure is about; another model's settles nothing. None for any.
        with_models: Words that a cell's model has to have in its name.
    """

    series: Series
    where: Where
    quantity: Literal["tokens_per_second", "milliseconds", "utilisation"]
    of: Literal["largest", "mean", "longest"]
    figure: float
    model: str | None = None
    with_models: str = ""

    def outcome(self, measurements: Measurements) -> Outcome:
        rows = [
            each for each in measurements.find(self.where, self.series) if self.with_models in (each.cell.model or "")
        ]
        rows = [each for each in rows if self._value(each) is not None]
        if not rows:
            raise MissingRowsError(f"no {self.quantity.replace('_', ' ')} of {self.series.label} ({self.where})")
        if self.of == "longest":
            return self._longest(max(rows, key=lambda each: (each.cell.length, each.cell.batch_size)))
        values = [self._value(each) or 0.0 for each in rows]
        value = max(values) if self.of == "largest" else statistics.fmean(values)
        largest = f" (largest {max(values):.1%})" if self.quantity == "utilisation" else ""
        return Outcome(
            held=in_range(Contrast(value=value, low=value, high=value), self.figure, self.figure),
            ours=f"{self._words(value)}, {self.of} of {len(rows)} cells{largest} ({self.series.label})",
            figure=point(value),
            reason="A summary of many cells has no interval.",
            evidence=tuple(each.identity for each in rows),
        )

    def _longest(self, found: Measured) -> Outcome:
        seconds = Contrast(
            value=found.times.median_seconds, low=found.times.interval_low, high=found.times.interval_high
        )
        low, high = sorted(self._of(found, end) for end in known(seconds))
        figure = Contrast(value=self._of(found, seconds.value), low=low, high=high)
        cell = found.cell
        place = ", ".join([*([cell.model] if cell.model else []), f"B={cell.batch_size}", f"L={cell.length}"])
        settled = self.model is None or cell.model == self.model
        return Outcome(
            held=in_range(figure, self.figure, self.figure) if settled else "not measured",
            ours=f"{self._words(figure.value)} ({self._words(low)} to {self._words(high)}; {place})",
            figure=figure,
            evidence=(found.identity,),
        )

    def _value(self, found: Measured) -> float | None:
        if self.quantity == "utilisation":
            return None if found.row.work is None else found.row.work.utilisation or None
        return None if found.timing is None else self._of(found, found.timing.median_seconds)

    def _of(self, found: Measured, seconds: float) -> float:
        tokens = found.cell.batch_size * found.cell.length
        return tokens / seconds if self.quantity == "tokens_per_second" else 1000 * seconds

    def _words(self, value: float) -> str:
        units = {"tokens_per_second": f"{value:,.0f} tokens/s", "milliseconds": f"{value:.2f} ms"}
        return units.get(self.quantity) or f"{value:.1%} of the measured matrix product peak"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread(Rule):
    """The largest coefficient of variation at some lengths against a bound."""

    where: Where
    lengths: tuple[int, ...]
    bound: float

    def outcome(self, measurements: Measurements) -> Outcome:
        rows = [each for length in self.lengths for each in measurements.find(self.where.at(length)) if each.timing]
        spreads = [(each.times.coefficient_of_variation, each) for each in rows]
        known_ones = [(spread, each) for spread, each in spreads if spread is not None]
        if not known_ones:
            raise MissingRowsError(f"no rows with a spread ({self.where})")
        worst, row = max(known_ones, key=lambda each: each[0])
        values = [spread for spread, _ in known_ones]
        below = sum(value < self.bound for value in values)
        return Outcome(
            held=worst < self.bound,
            ours=f"{below} of {len(values)} cells below {self.bound:.0%}; largest {worst:.1%} ({row.cell.variant}, "
            f"N={row.cell.length}), median {np.median(values):.1%}",
            figure=point(worst),
            reason="Standard deviation over mean of the rounds, at the published lengths; one slow round is enough to "
            f"break {self.bound:.0%}.",
            evidence=tuple(each.identity for _, each in known_ones),
        )


def _mean(pairs: Sequence[Pair]) -> Contrast:
    """Geometric mean of the ratios."""
    return contrast([logarithms(pair.ratios) for pair in pairs], [1 / len(pairs)] * len(pairs)).exponential


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
        factor = 1.0 if self.link is None else self.link.ratio.value
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
        low, high = known(contrast(parts, weights).exponential)
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

    def outcome(self, measurements: Measurements) -> Outcome:
        found = {length: self._podium(measurements, self.where.at(length)) for length in self.lengths}
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

    def _podium(self, measurements: Measurements, where: Where) -> tuple[str, tuple[str, ...], list[_Contender]]:
        """The fastest, those that tie with it, and all that were timed in one group."""
        field = []
        for series in self.field:
            try:
                field.append(self._contender(measurements, series, where))
            except MissingRowsError:
                if series in self.needed:
                    raise
        first = min(field, key=lambda contender: contender.seconds)
        if len(first.timed.samples) < 2:
            raise MissingRowsError("a single sample has no interval")
        tied = tuple(each.series.label for each in field if each is not first and each.ties(first))
        return first.series.label, tied, field

    def _contender(self, measurements: Measurements, series: Series, where: Where) -> _Contender:
        other = {one.label: two for one, two in self.linked}.get(series.label)
        link = None if other is None else measurements.pair(series, other, where)
        shared = measurements.pair(series if other is None else other, self.shared, where)
        return _Contender(series=series, timed=shared.numerator, link=link)
