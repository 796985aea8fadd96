"""Rules about one time over another: figures, sides of 1, ties, trends, and what is never beaten."""

import dataclasses
from typing import Literal

from eval.claims.claim import (
    Outcome,
    Rule,
    in_range,
    is_tie,
    known,
    point,
    same_figure,
    same_side,
    ties,
    times,
    verdict,
)
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where, identities
from eval.query import Pair
from eval.statistics import holm

Kind = Literal["figure", "range", "above", "below", "tie"]
Show = Literal["last", "least", "largest", "farthest"]
# Pairs that a text lists one by one.
_MOST_LISTED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A further ratio to state; the rest of where is the claim's own."""

    above: Series
    below: Series
    length: int | None = None
    mode: str | None = None

    def words(self, measurements: Measurements, where: Where) -> str:
        """The ratio, or that it was not measured."""
        there = dataclasses.replace(where, length=self.length or where.length, mode=self.mode or where.mode)
        try:
            figure = times(measurements.pair(self.above, self.below, there))
        except MissingRowsError:
            figure = "not measured"
        place = ", ".join(each for each in (there.mode or "", f"N={there.length}" if there.length else "") if each)
        return f"{self.above.label} over {self.below.label} ({place}): {figure}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio(Rule):
    """One series' time over another's, at some lengths or in every cell.

    Attributes:
        above: Whose time is above.
        below: Whose time is below; of several, each.
        where: The cells.
        lengths: Each of them has to be there; none: every pair that there is.
        kind: "figure" or "range", or the side of 1 on which the ratio is claimed to lie, or a tie.
        figures: The published ones: one for each length, or several for one pair; the ends of a range.
        tolerance: Of the ends of a range.
        show: Which pair's figure is the claim's: the last (or the first that does not hold), or an extreme one.
        judged: Whether each pair has to hold, or the shown one alone, or most of them.
        beside: Further ratios to state.
        first_call: Whether to state how much slower the denominator's first call is.
        noise: Whether to state the largest ratio of an A/A control.
        prefix: Of our figures, in words.
        own_target: What this library promises of the ratio.
    """

    above: Series
    below: Series | tuple[Series, ...]
    where: Where
    lengths: tuple[int, ...] = ()
    kind: Kind
    figures: tuple[float, ...] = ()
    tolerance: float = 0.1
    show: Show = "last"
    judged: Literal["each", "shown", "most"] = "each"
    beside: tuple[Beside, ...] = ()
    first_call: bool = False
    noise: bool = False
    prefix: str = ""
    own_target: float | None = None

    def outcome(self, measurements: Measurements) -> Outcome:
        pairs = self._pairs(measurements)
        # One figure for each length, or all of them for each pair.
        each_its_own = self.kind == "figure" and len(self.figures) == len(pairs) and not self._has_several
        claimed = {name: self.figures[i : i + 1] if each_its_own else self.figures for i, name in enumerate(pairs)}
        held = {name: self._holds(pair, claimed[name]) for name, pair in pairs.items()}
        if self.judged == "most":
            return self._most(pairs, held)
        shown = self._shown(pairs, held)
        asked = [shown] if self.judged == "shown" else list(pairs)
        failing = [name for name in asked if not held[name]]
        is_open = {name: self._is_open(pairs[name], claimed[name]) for name in failing}
        notes = (self._rule(pairs[shown]), self._against(pairs, is_open), self._target(pairs))
        return Outcome(
            held=not failing,
            ours=self._ours(measurements, pairs, pairs[shown]),
            figure=pairs[shown].ratio,
            reason=" ".join(note for note in notes if note),
            undecided=self._what_is_open() if failing and all(is_open.values()) else "",
            evidence=identities(pairs.values()),
        )

    @property
    def _belows(self) -> tuple[Series, ...]:
        return self.below if isinstance(self.below, tuple) else (self.below,)

    @property
    def _has_several(self) -> bool:
        return self.kind == "figure" and len(self.figures) > max(1, len(self.lengths))

    def _pairs(self, measurements: Measurements) -> dict[str, Pair]:
        if not self.lengths:
            found = [pair for below in self._belows for pair in measurements.some_pairs(self.above, below, self.where)]
            return {pair.cell.group: pair for pair in found}
        return {
            (f"{self.above.label} over {below.label}, " if len(self._belows) > 1 else "") + f"N={length}": (
                measurements.pair(self.above, below, self.where.at(length))
            )
            for below in self._belows
            for length in self.lengths
        }

    def _holds(self, pair: Pair, claimed: tuple[float, ...]) -> bool:
        found = pair.ratio
        match self.kind:
            case "figure":
                return all(same_figure(found, each) for each in claimed)
            case "range":
                least, most = claimed
                return same_side(found, above=True) and in_range(found, least, most, self.tolerance)
            case "tie":
                return ties(found)
        return same_side(found, above=self.kind == "above")

    def _shown(self, pairs: dict[str, Pair], held: dict[str, bool]) -> str:
        match self.show:
            case "least":
                return min(pairs, key=lambda name: pairs[name].ratio.value)
            case "largest":
                return max(pairs, key=lambda name: pairs[name].ratio.value)
            case "farthest":
                return max(pairs, key=lambda name: abs(pairs[name].ratio.value - 1))
        return next((name for name in pairs if not held[name]), list(pairs)[-1])

    def _is_open(self, pair: Pair, claimed: tuple[float, ...]) -> bool:
        """Whether a ratio that does not bear the claim out does not refute it either."""
        low, high = known(pair.ratio)
        if self.kind in ("above", "below"):
            return low <= 1 <= high
        if self.kind == "tie" or any(map(is_tie, claimed[:1])):
            return in_range(pair.ratio, 1, 1)
        return self.kind == "figure" and in_range(pair.ratio, claimed[0], claimed[0]) and low <= 1 <= high

    def _what_is_open(self) -> str:
        if self.kind in ("above", "below"):
            return "an interval holds 1"
        if self.kind == "figure" and not any(map(is_tie, self.figures)):
            return "an interval holds both the published figure and 1"
        return "an interval reaches beyond 10 % of 1"

    def _ours(self, measurements: Measurements, pairs: dict[str, Pair], shown: Pair) -> str:
        if len(pairs) <= _MOST_LISTED:
            texts = ["; ".join(f"{name}: {times(pair)}" for name, pair in pairs.items())]
        else:
            ratios = [pair.ratio.value for pair in pairs.values()]
            span = f"{min(ratios):.2f}x to {max(ratios):.2f}x over {len(pairs)} cells"
            which = self.show if self.show != "last" else "the last"
            texts = [f"{span}; {which} {times(shown)} ({shown.cell.group})"]
        where = self.where.at(self.lengths[-1]) if self.lengths else self.where
        texts += [each.words(measurements, where) for each in self.beside]
        if self.first_call:
            cold = shown.numerator.times.first_call_seconds / shown.numerator.times.median_seconds
            texts.append(f"the baseline's first call takes {cold:.1f} times its median")
        if self.noise:
            controls = [pair.ratio.value for pair in measurements.controls(self.where)]
            largest = f"largest ratio of an A/A control {max(controls):.2f}x over {len(controls)}" if controls else ""
            texts.append(largest or "no A/A control")
        return self.prefix + "; ".join(texts)

    def _rule(self, shown: Pair) -> str:
        published = ", ".join(f"{figure:.2f}" for figure in self.figures)
        if self._has_several:
            judged = {each: verdict(same_figure(shown.ratio, each)) for each in self.figures}
            published = ", ".join(f"{figure} ({found})" for figure, found in judged.items())
        rule = {
            "figure": f"published {published}",
            "range": f"published {' to '.join(f'{each:g}' for each in self.figures)}",
            "above": "claimed to be above 1",
            "below": "claimed to be below 1",
            "tie": "claimed to be about 1",
        }[self.kind]
        return f"{self.above.label} over {' and '.join(each.label for each in self._belows)}, {rule}."

    def _against(self, pairs: dict[str, Pair], is_open: dict[str, bool]) -> str:
        """The cells of many that speak against a tie, or where none does those that leave it open."""
        if self.lengths or self.kind != "tie" or not is_open:
            return ""
        refuting = [name for name, undecided in is_open.items() if not undecided]
        named = "; ".join(f"{name}, {times(pairs[name])}" for name in refuting or is_open)
        return f"{'More than 10 % from 1' if refuting else 'Intervals that reach beyond 10 % of 1'}: {named}."

    def _target(self, pairs: dict[str, Pair]) -> str:
        if self.own_target is None:
            return ""
        ends = [known(pair.ratio) for pair in pairs.values()]
        met, missed = sum(high <= self.own_target for _, high in ends), sum(low > self.own_target for low, _ in ends)
        return (
            f"This library's own target is a ratio of at most {self.own_target}: the interval lies below it in {met}, "
            f"above it in {missed} of {len(pairs)} cells."
        )

    def _most(self, pairs: dict[str, Pair], held: dict[str, bool]) -> Outcome:
        faster = sum(held.values())
        slower = sum(same_side(pair.ratio, above=False) for pair in pairs.values())
        return Outcome(
            held=2 * faster > len(pairs),
            ours=f"faster in {faster}, slower in {slower}, undecided in {len(pairs) - faster - slower} of {len(pairs)} "
            "cells",
            figure=point(faster / len(pairs)),
            reason="Most: more than half of the intervals above 1.",
            evidence=identities(pairs.values()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class All(Rule):
    """Several ratios that all have to hold; they have no common figure."""

    parts: tuple[Ratio, ...]

    def outcome(self, measurements: Measurements) -> Outcome:
        found = [part.outcome(measurements) for part in self.parts]
        return Outcome(
            held=all(each.held for each in found),
            ours="; ".join(each.ours for each in found),
            reason=" ".join(each.reason for each in found),
            evidence=tuple(dict.fromkeys(identity for each in found for identity in each.evidence)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeverBeaten(Rule):
    """Whether at each length a series beats, or ties with, each of some others."""

    series: Series
    others: tuple[Series, ...]
    where: Where
    lengths: tuple[int, ...]

    def outcome(self, measurements: Measurements) -> Outcome:
        found = {
            other.label: measurements.by_length(other, self.series, self.where, self.lengths) for other in self.others
        }
        pairs = {f"{label} at N={length}": pair for label, each in found.items() for length, pair in each.items()}
        beaten = [name for name, pair in pairs.items() if same_side(pair.ratio, above=False)]
        return Outcome(
            held=not beaten,
            ours=" | ".join(f"{label} over {self.series.label}: {at_lengths(each)}" for label, each in found.items()),
            figure=min((pair.ratio for pair in pairs.values()), key=lambda figure: figure.value),
            reason=f"Beaten by {', '.join(beaten)}." if beaten else "No other implementation of the same is faster.",
            evidence=identities(pairs.values()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Significance(Rule):
    """Welch's p-value at one length, corrected over the lengths that were tested, and the direction."""

    above: Series
    below: Series
    where: Where
    length: int
    level: float

    def outcome(self, measurements: Measurements) -> Outcome:
        pairs = measurements.by_length(self.above, self.below, self.where, (self.length,))
        tested = {length: p for length, pair in pairs.items() if (p := pair.ratio.p_value) is not None}
        if self.length not in tested:
            raise MissingRowsError("a single sample, or equal ones, cannot be tested")
        p_value = dict(zip(tested, holm(list(tested.values())), strict=True))[self.length]
        return Outcome(
            held=p_value < self.level and pairs[self.length].ratio.value < 1,
            ours=f"p = {p_value:.2g} after Holm's correction over {len(tested)} lengths; ratio "
            f"{times(pairs[self.length])}",
            figure=point(p_value),
            reason=f"Faster, with p < {self.level}.",
            evidence=identities(pairs.values()),
        )


def at_lengths(pairs: dict[int, Pair]) -> str:
    """Ratios, length by length, in words."""
    return "; ".join(f"N={length}: {times(pair)}" for length, pair in pairs.items())
