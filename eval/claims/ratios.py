"""Rules that read ratios of times: of pairs, of means over cells, of powers of times, and of trainings."""

import itertools
from collections.abc import Sequence
from typing import Literal

from eval.claims.claim import ELSEWHERE, Reading, Rule, Show, known, with_interval
from eval.claims.measurements import (
    Entry,
    Measurements,
    MissingRowsError,
    NamedSeries,
    SomeSeries,
    Where,
    by_seed,
    rows_of,
)
from eval.query import Pair
from eval.rows import Quality
from eval.statistics import Contrast, contrast, logarithms, paired_ratio

_SCALED = "Settled by training steps of a small Llama-shaped model: not by fine-tuning, and not by the named model."
_FINETUNED = "Settled by fine-tuning a real checkpoint of the Llama family, paired by seed, of another size."
# How `compare.py` names models that were fine-tuned on tokens alone.
_FINETUNED_MODEL = ", finetune"


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
    """One series' time over another's, at some lengths or in every cell.

    Attributes:
        above: Whose time is above; of several, each.
        below: Whose time is below; of several, each.
        lengths: Each of them has to be there; none: every pair that there is.
        other_lengths: Whether other lengths count as well, where they are there.
        beside: Further ratios to state.
        first_call: Whether to state how much slower the numerator's first call is.
        noise: Whether to state the largest ratio of an A/A control.
        own_target: What this library promises of the ratio.
    """

    above: SomeSeries
    below: SomeSeries
    lengths: tuple[int, ...] = ()
    other_lengths: bool = False
    beside: tuple[Beside, ...] = ()
    first_call: bool = False
    noise: bool = False
    own_target: float | None = None

    def read(self, measurements: Measurements) -> Reading:
        """The ratio of each pair."""
        pairs = self._pairs(measurements)
        above, below = (" and ".join(each.label for each in some) for some in (self.above, self.below))
        figures = [(name, pair.ratio) for name, pair in pairs.items()]
        beside, rows = self._beside(measurements, list(pairs.values())), rows_of(pairs.values())
        return Reading(figures=figures, of=f"{above} over {below}", beside=beside, rows=rows)

    def _pairs(self, measurements: Measurements) -> dict[str, Pair]:
        found = {}
        for above, below in itertools.product(self.above, self.below):
            if self.lengths:
                lengths = measurements.by_length(above, below, self.where, self.lengths)
                asked = lengths if self.other_lengths else self.lengths
                pairs = {f"N={length}": lengths[length] for length in asked}
            else:
                pairs = {pair.cell.group: pair for pair in measurements.pairs(above, below, self.where)}
            several = len(self.above) + len(self.below) > 2
            prefix = f"{above.label} over {below.label}, " if several else ""
            found.update({prefix + place: pair for place, pair in pairs.items()})
        return found

    def _beside(self, measurements: Measurements, pairs: Sequence[Pair]) -> list[str]:
        where = self.where.at(self.lengths[-1]) if self.lengths else self.where
        texts = [each.words(measurements, where) for each in self.beside]
        if self.first_call:
            times = pairs[-1].numerator.times
            cold = times.first_call_seconds / times.median_seconds
            texts.append(f"the baseline's first call takes {cold:.1f} times its median")
        if self.noise:
            controls = [pair.ratio.value for pair in measurements.controls(self.where)]
            largest = f"largest ratio of an A/A control {max(controls):.2f}x over {len(controls)}" if controls else ""
            texts.append(largest or "no A/A control")
        if self.own_target is not None:
            ends = [known(pair.ratio) for pair in pairs]
            met, missed = (
                sum(high <= self.own_target for _, high in ends),
                sum(low > self.own_target for low, _ in ends),
            )
            target = f"this library's own target, a ratio of at most {self.own_target}"
            texts.append(f"{target}, is met in {met} and missed in {missed} of {len(pairs)} cells")
        return texts


class Mean(Rule):
    """The geometric mean of one series' time over another's, over all cells, or how it falls along an axis.

    A mean that falls is the largest at the axis' least value and the smallest at its greatest; our figure is then the
    first over the last.

    Attributes:
        above: Whose time is above.
        below: Whose time is below; None: A/A controls over what they repeat.
        falls_along: A cell's field; None: it is the mean itself that is claimed.
    """

    above: NamedSeries
    below: NamedSeries | None = None
    falls_along: Literal["head_dim", "length", "batch_size"] | None = None

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
        if self.falls_along is None:
            figures = [(f"geometric mean of {len(pairs)} cells", _mean(pairs))]
            return Reading(figures=figures, of=of, rows=rows_of(pairs))
        axis = self.falls_along
        places = sorted({getattr(pair.cell, axis) for pair in pairs})
        if len(places) < 2:
            raise MissingRowsError(f"one {axis} only ({self.where})")
        groups = [[pair for pair in pairs if getattr(pair.cell, axis) == place] for place in places]
        means = [_mean(group) for group in groups]
        values = [mean.value for mean in means]
        name = f"{axis} {places[0]} over {places[-1]}"
        return Reading(
            figures=[(name, _mean(groups[0], groups[-1]))],
            of=f"{of}, {name}",
            holds=values[0] == max(values) and values[-1] == min(values),
            beside=[f"{axis} {place}: {with_interval(mean)}" for place, mean in zip(places, means, strict=True)],
            reason="The first mean has to be the largest, the last the smallest.",
            rows=rows_of(pairs),
        )


class Product(Rule):
    """A product of powers of times, such as one step over another.

    Attributes:
        terms: A series, a length and a power each.
        what: The product in words.
    """

    terms: tuple[tuple[NamedSeries, int, float], ...]
    what: str

    def read(self, measurements: Measurements) -> Reading:
        """The product."""
        rows = [measurements.timed(self.where.at(length), series) for series, length, _ in self.terms]
        found = contrast([logarithms(row.samples) for row in rows], [power for *_, power in self.terms]).exponential
        return Reading(figures=[(self.what, found)], of=self.what, rows=rows)


class Training(Rule):
    """Training with one attention over training with another: fine-tunings where there are any, else training steps.

    Attributes:
        above: Variant and series whose time is above.
        below: Those whose time is below.
        what: Our figure, in words.
    """

    show: Show = "last"
    above: tuple[str, NamedSeries]
    below: tuple[str, NamedSeries]
    what: str

    def read(self, measurements: Measurements) -> Reading:
        """The ratio of each model that was trained with both, the longest last."""
        trained = by_seed(measurements.rows, (self.above[0], self.below[0]), _finetuning)
        if trained:
            figures = []
            for (model, _, steps, _), (above, below, rows) in trained.items():
                ways = {(row.quality.variant, row.quality.implementation) for row in rows if row.quality}
                computed = " and ".join(sorted(" by ".join(filter(None, way)) for way in ways))
                name = f"{model} ({steps} steps, {len(above)} seeds, {computed})"
                figures.append((name, paired_ratio(above, below)))
            used = [row for found in trained.values() for row in found.rows]
            figures.sort(key=lambda figure: figure[0])
            return Reading(figures=figures, of=self.what, reason=_FINETUNED, rows=used)
        pairs = measurements.pairs(self.above[1], self.below[1], self.where)
        pairs.sort(key=lambda pair: (pair.cell.length, pair.cell.batch_size))
        named = [(f"{pair.cell.model}, B={pair.cell.batch_size}, L={pair.cell.length}", pair) for pair in pairs]
        figures = [(name, pair.ratio) for name, pair in named]
        return Reading(figures=figures, of=self.what, reason=_SCALED, rows=rows_of(pairs))


def _finetuning(quality: Quality) -> tuple[tuple[object, ...], float] | None:
    """What a fine-tuning was of, and its seconds a token."""
    if quality.tokens_per_second is None or not quality.model.endswith(_FINETUNED_MODEL):
        return None
    return (quality.model, quality.data, quality.steps, quality.settings), 1 / quality.tokens_per_second


def _mean(pairs: Sequence[Pair], over: Sequence[Pair] = ()) -> Contrast:
    """Geometric mean of the ratios, over that of others."""
    weights = [1 / len(pairs)] * len(pairs) + [-1 / len(over) for _ in over]
    return contrast([logarithms(pair.ratios) for pair in (*pairs, *over)], weights).exponential
