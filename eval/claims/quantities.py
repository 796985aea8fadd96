"""The rule about figures by name, and the quantities that it reads.

A further quantity is a function from the rule and the rows to a `Reading`, and a line of `QUANTITIES`.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from eval.claims.claim import Kinds, Reading, Rule, Show, known, with_interval
from eval.claims.measurements import Measurements, MissingRowsError, NamedLine, NamedSeries, SomeSeries, rows_of
from eval.query import Measured, grouped
from eval.rows import Quality
from eval.statistics import (
    Contrast,
    constant_relative_spread,
    contrast,
    holm,
    logarithms,
    paired_difference,
    paired_ratio,
    scaling_exponent,
)
from zoo.attention.catalog import variant_mapping
from zoo.attention.function import function_of
from zoo.config.errors import require

# How `compare.py` names models that were fine-tuned on tokens alone.
_FINETUNED_MODEL = ", finetune"
_FINETUNED = "Settled by fine-tuning a real checkpoint of the Llama family, paired by seed, of another size."
_SCALED = "Settled by training steps of a small Llama-shaped model: not by fine-tuning, and not by the named model."


class Absolute(Rule):
    """A figure by its name, where no other rule reads it."""

    quantity: str = Field(description="a name in `QUANTITIES`, which tells which of the following fields it takes")
    kind: Kinds = ("any",)
    show: Show = "largest"
    what: str = Field("", description="the figure in words, where its name does not do")
    # Of the three, only the longest cell's figure has an interval.
    of: Literal["cells", "mean", "longest"] = Field("cells", description="each cell, their mean, or the longest cell")
    series: SomeSeries = Field((), description="whose, and of some quantities what it is compared with")
    lengths: tuple[int, ...] = Field((), description="those that are read; of a series, each has to be there")
    terms: tuple[tuple[NamedSeries, int, float], ...] = Field((), description="a series, a length and a power each")
    line: NamedLine = Field({}, description="of the source's own table")
    model: str | None = Field(None, description="which the figure is about; another model's settles nothing")
    variants: tuple[str, ...] = Field((), description="trained ones, the first of which the claim is about")
    given: Mapping[str, float] = Field({}, description="what arithmetic takes")

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> Self:
        require(self.quantity in QUANTITIES, "quantity", "be one", self.quantity, allowed=QUANTITIES)
        takes = QUANTITIES[self.quantity].takes
        own = self.model_fields_set - Rule.model_fields.keys() - {"quantity", "given"}
        given = {name: getattr(self, name) for name in own} | {name: [number] for name, number in self.given.items()}
        for name in given:
            require(name in takes, "a key", f"be one that {self.quantity} takes", name, allowed=takes)
        for name, needed in takes.items():
            there = len(given.get(name, ())) if needed else 0
            require(there >= needed, name, f"be {needed} for {self.quantity}", there)
        return self

    def read(self, measurements: Measurements) -> Reading:
        """The quantity, in all rows that have it."""
        quantity = QUANTITIES[self.quantity]
        of = self.what or self.quantity.replace("_", " ")
        return dataclasses.replace(quantity.read(self, measurements), of=of, form=quantity.form, counted=True)

    def cells(self, measurements: Measurements) -> list[Measured]:
        """The rows that are asked for, of the first series or of all."""
        if self.lengths and self.series:
            return [measurements.timed(self.where.at(length), self.series[0]) for length in self.lengths]
        places = [self.where.at(length) for length in self.lengths] or [self.where]
        return [each for where in places for each in measurements.find(where, *self.series[:1])]


class _Quantity(NamedTuple):
    """How a quantity is read and printed, and which fields of the rule it takes, how many of each at least."""

    read: Callable[[Absolute, Measurements], Reading]
    form: str
    takes: Mapping[str, int]


def _each_cell(of: Callable[[Measured, float], float | None], form: str, *, num_series: int = 1) -> _Quantity:
    """What follows from a row and its seconds, of each cell, of their mean, or of the longest cell."""

    def read(rule: Absolute, measurements: Measurements) -> Reading:
        cells = [each for each in rule.cells(measurements) if each.timing]
        found = [(each, figure) for each in cells if (figure := of(each, each.times.median_seconds)) is not None]
        if not found:
            raise MissingRowsError(f"no {rule.quantity} ({rule.where})")
        rows, values = [each for each, _ in found], [figure for _, figure in found]
        figures = [(_place(each), _point(value)) for each, value in found]
        if rule.of == "cells":
            return Reading(figures=figures, rows=rows)
        if rule.of == "mean":
            beside = [f"from {form.format(min(values))} to {form.format(max(values))}"]
            figures = [(f"mean of {len(found)} cells", _point(statistics.fmean(values)))]
            return Reading(figures=figures, beside=beside, rows=rows)
        longest = max(rows, key=lambda each: (each.cell.length, each.cell.batch_size))
        times = longest.times
        seconds = Contrast(value=times.median_seconds, low=times.interval_low, high=times.interval_high)
        low, middle, high = sorted(of(longest, each) or 0.0 for each in (*known(seconds), seconds.value))
        figures = [(_place(longest), Contrast(value=middle, low=low, high=high))]
        settles = rule.model in (None, longest.cell.model)
        return Reading(figures=figures, holds=True if settles else "not measured", rows=[longest])

    return _Quantity(read, form, {"series": num_series, "lengths": 0, "of": 0, "model": 0})


def _output_difference(rule: Absolute, measurements: Measurements) -> Reading:
    # Where the outputs differ, there is no time, and the row says by how much.
    rows = rule.cells(measurements)
    checks = [(_place(each), each.row.correctness) for each in rows if each.row.correctness]
    figures = [(place, _point(check.max_error)) for place, check in checks if check.max_error is not None]
    if not figures:
        raise MissingRowsError(f"no outputs were compared ({rule.where})")
    return Reading(figures=figures, holds=all(check.passed for _, check in checks), rows=rows)


def _slope(rule: Absolute, measurements: Measurements) -> Reading:
    """Of a time at the lengths, or of the ratio of two at these and all others that were timed."""
    if len(rule.series) == 1:
        rows = rule.cells(measurements)
        times = {each.cell.length: each.samples for each in rows}
        beside = [f"{_place(each)}: {1000 * each.median:.2f} ms" for each in rows]
    else:
        pairs = measurements.by_length(rule.series[0], rule.series[1], rule.where, rule.lengths)
        times = {length: tuple(pair.ratios) for length, pair in pairs.items()}
        beside = [f"N={length}: {with_interval(pair.ratio)}" for length, pair in pairs.items()]
        rows = rows_of(pairs.values())
    slope = scaling_exponent(list(times), list(times.values()))
    known(slope)
    return Reading(figures=[("power of N", slope)], beside=beside, rows=rows)


def _printed_slope(rule: Absolute, measurements: Measurements) -> Reading:
    slope = scaling_exponent(list(rule.line), [[seconds] for seconds in rule.line.values()])
    return Reading(figures=[("power of N by least squares from the printed single means", slope)])


def _product(rule: Absolute, measurements: Measurements) -> Reading:
    """Of powers of times, such as one step over another."""
    rows = [measurements.timed(rule.where.at(length), series) for series, length, _ in rule.terms]
    product = contrast([logarithms(row.samples) for row in rows], [power for *_, power in rule.terms]).exponential
    known(product)
    return Reading(figures=[(rule.what, product)], rows=rows)


def _training_ratio(rule: Absolute, measurements: Measurements) -> Reading:
    """The first variant's training over the second's, of each model, the longest last: fine-tunings, or else steps."""

    def read(quality: Quality) -> tuple[tuple[object, ...], float] | None:
        if quality.tokens_per_second is None or not quality.model.endswith(_FINETUNED_MODEL):
            return None
        return (quality.model, quality.data, quality.steps, quality.settings), 1 / quality.tokens_per_second

    figures, used = [], []
    for (model, _, steps, _), (above, below, rows) in measurements.by_seed(rule.variants, read).items():
        ways = {(row.quality.variant, row.quality.implementation) for row in rows if row.quality}
        computed = " and ".join(sorted(" by ".join(filter(None, way)) for way in ways))
        figures.append((f"{model} ({steps} steps, {len(above)} seeds, {computed})", paired_ratio(above, below)))
        used += rows
    if figures:
        return Reading(figures=sorted(figures, key=lambda figure: figure[0]), reason=_FINETUNED, rows=used)
    pairs = measurements.pairs(rule.series[0], rule.series[1], rule.where)
    pairs.sort(key=lambda pair: (pair.cell.length, pair.cell.batch_size))
    for pair in pairs:
        known(pair.ratio)
        figures.append((f"{pair.cell.model}, B={pair.cell.batch_size}, L={pair.cell.length}", pair.ratio))
    return Reading(figures=figures, reason=_SCALED, rows=rows_of(pairs))


def _p_value(rule: Absolute, measurements: Measurements) -> Reading:
    """Welch's, at the first length, and whether the first series is faster there."""
    length = rule.lengths[0]
    pairs = measurements.by_length(rule.series[0], rule.series[1], rule.where, [length])
    ratio, tested = pairs[length].ratio, [p for pair in pairs.values() if (p := pair.ratio.p_value) is not None]
    if ratio.p_value is None:
        raise MissingRowsError("a single sample, or equal ones, cannot be tested")
    corrected = _point(dict(zip(tested, holm(tested), strict=True))[ratio.p_value])
    name = f"Welch's p at N={length} after Holm's correction over {len(tested)} lengths"
    beside = [f"ratio {with_interval(ratio)}, below 1 if faster"]
    return Reading(figures=[(name, corrected)], holds=ratio.value < 1, beside=beside, rows=rows_of(pairs.values()))


def _saving(size: Callable[[Measured], int | None]) -> _Quantity:
    """What share of bytes a series saves over another, in each group that holds both."""

    def read(rule: Absolute, measurements: Measurements) -> Reading:
        of_series = [filter(size, measurements.find(rule.where, series)) for series in rule.series[:2]]
        ours, theirs = (grouped(own, lambda each: f"{each.cell.suite}, {each.cell.group}") for own in of_series)
        figures, rows = [], []
        for name in sorted(ours.keys() & theirs.keys()):
            rows += [ours[name][0], theirs[name][0]]
            own, other = (size(each) or 1 for each in rows[-2:])
            figures.append((f"{name} ({own:,} against {other:,} bytes)", _point(1 - own / other)))
        if not figures:
            both = " and ".join(each.label for each in rule.series)
            raise MissingRowsError(f"no bytes of both {both} ({rule.where})")
        return Reading(figures=figures, rows=rows)

    return _Quantity(read, "{:.1%}", {"series": 2})


def _quality_cost(rule: Absolute, measurements: Measurements) -> Reading:
    """Bits per byte of the first variant minus those of the second, where both were trained; beside them accuracy."""

    def read(quality: Quality) -> tuple[tuple[object, ...], float] | None:
        # Of the whole task only: where along an axis the difference lies is another table.
        asked = quality.budget == "equal_tokens" and quality.is_overall
        if quality.value is None or not asked or quality.quantity not in ("bits_per_byte", "accuracy"):
            return None
        steps = "" if quality.steps is None else f", {quality.steps} steps"
        name = f"{' minus '.join(rule.variants)}, {quality.quantity} of {quality.task}"
        name += f" ({quality.model}, {quality.data}{steps})"
        return (quality.quantity, name, quality.trained_on, quality.measured_on, quality.terms), quality.value

    found = measurements.by_seed(rule.variants[:2], read)
    costs = [(metric, name, paired_difference(*pairs)) for (metric, name, *_), (*pairs, _) in found.items()]
    losses = [(name, cost) for metric, name, cost in costs if metric == "bits_per_byte"]
    recall = [(name, cost) for metric, name, cost in costs if metric == "accuracy"]
    if not losses:
        both = " and ".join(rule.variants)
        raise MissingRowsError(f"no bits per byte of {both} at equal tokens, of two seeds at least")
    worse = [known(cost)[0] > 0 for _, cost in losses] + [known(cost)[1] < 0 for _, cost in recall]
    beside = [f"{name}: {with_interval(cost, '{:.3f}')}" for name, cost in recall]
    rows = [row for *_, own in found.values() for row in own]
    return Reading(figures=losses, holds=any(worse), beside=beside, rows=rows)


def _logit_difference(rule: Absolute, measurements: Measurements) -> Reading:
    """Of trained models whose attention was exchanged for another way to compute the same function."""
    wanted, figures, rows, whole = function_of(variant_mapping(rule.variants[0])), [], [], True
    # Of one model after one prompt, which is taken from the data.
    texts: dict[tuple[str, str], set[str | None]] = {}
    for row in measurements.rows:
        quality = row.quality
        if quality is None or not (quality.surgery and quality.attention):
            continue
        if function_of(json.loads(quality.attention)) == wanted:
            surgery = json.loads(quality.surgery)
            whole = whole and len(surgery["layers"]) == surgery["num_layers"]
            texts.setdefault((quality.model, quality.data), set()).add((surgery.get("greedy") or {}).get("text"))
            difference = _point(surgery["damage"]["largest_logit_difference"])
            figures.append((f"{quality.variant} in {quality.model}", difference))
            rows.append(row)
    if not rows:
        raise MissingRowsError("no row is of a model whose attention was exchanged")
    same = all(len(found) == 1 for found in texts.values())
    beside = f"{'every layer' if whole else 'some layers'}, greedy texts {'equal' if same else 'not equal'}"
    return Reading(figures=figures, holds=whole and same, beside=[beside], rows=rows)


def _printed_spread(rule: Absolute, measurements: Measurements) -> Reading:
    """Whether published spreads look measured: so many means, each with a deviation of one share of it; ours beside."""
    num_means, share = int(rule.given["num_means"]), rule.given["share"]
    rows = [each for each in measurements.speed if each.timing is not None]
    ours = [spread for each in rows if (spread := each.times.coefficient_of_variation) is not None]
    beside = f"{min(ours):.1%} to {max(ours):.1%} over {len(ours)} rows" if ours else "not measured"
    constant = ", constant as well" if constant_relative_spread(ours) else ""
    published = f"the published data hold {num_means} single means, each with a deviation of {share:.0%}"
    holds = not constant_relative_spread([share] * num_means)
    return Reading(holds=holds, beside=[published, f"ours: {beside}{constant}"], rows=rows)


def _score_mebibytes(rule: Absolute, measurements: Measurements) -> Reading:
    num_heads, length = int(rule.given["num_heads"]), int(rule.given["length"])
    mebibytes = num_heads * length**2 * np.dtype(np.float32).itemsize / 2**20
    return Reading(figures=[(f"{num_heads} heads of {length} x {length} float32 scores", _point(mebibytes))])


def _half_precision_elu(rule: Absolute, measurements: Measurements) -> Reading:
    x = np.float16(rule.given["x"])
    as_published = _point(float((np.exp(x) - np.float16(1)) + np.float16(1)))
    beside = [f"{float(np.exp(x)):.6f} as exp(x) below 0"]
    return Reading(figures=[(f"elu({x:g}) + 1 in float16, as published", as_published)], beside=beside)


def _tokens_per_second(each: Measured, seconds: float) -> float:
    return each.cell.batch_size * each.cell.length / seconds


def _utilisation(each: Measured, seconds: float) -> float | None:
    return None if each.row.work is None else each.row.work.utilisation or None


def _point(value: float) -> Contrast:
    """A figure without an interval."""
    return Contrast(value=value, low=None, high=None)


def _place(each: Measured) -> str:
    """Where a figure was measured, in words."""
    nodes = None if each.row.work is None else each.row.work.graph_nodes
    place = f"{each.cell.model or each.cell.variant}, B={each.cell.batch_size}, L={each.cell.length}"
    return place + (f", {nodes} operations" if nodes else "")


QUANTITIES = {
    "tokens_per_second": _each_cell(_tokens_per_second, "{:,.0f} tokens/s"),
    "milliseconds": _each_cell(lambda _, seconds: 1000 * seconds, "{:.2f} ms"),
    "utilisation": _each_cell(_utilisation, "{:.1%}"),
    "spread": _each_cell(lambda each, _: each.times.coefficient_of_variation, "{:.1%}", num_series=0),
    "slope": _Quantity(_slope, "{:.2f}", {"series": 1, "lengths": 2}),
    "printed_slope": _Quantity(_printed_slope, "{:.2f}", {"line": 1}),
    "product": _Quantity(_product, "{:.2f}x", {"terms": 1, "what": 1}),
    "training_ratio": _Quantity(_training_ratio, "{:.2f}x", {"variants": 2, "series": 2, "what": 1}),
    "p_value": _Quantity(_p_value, "{:.2g}", {"series": 2, "lengths": 1}),
    "peak_saving": _saving(lambda each: each.peak_bytes),
    "cache_saving": _saving(lambda each: each.cache_bytes),
    "output_difference": _Quantity(_output_difference, "{:.2g}", {"series": 1, "lengths": 0}),
    "quality_cost": _Quantity(_quality_cost, "{:.3f}", {"variants": 2}),
    "logit_difference": _Quantity(_logit_difference, "{:.1e}", {"variants": 1}),
    "printed_spread": _Quantity(_printed_spread, "", {"num_means": 1, "share": 1}),
    "score_mebibytes": _Quantity(_score_mebibytes, "{:.0f} MiB", {"num_heads": 1, "length": 1}),
    "half_precision_elu": _Quantity(_half_precision_elu, "{:.6f}", {"x": 1}),
}
