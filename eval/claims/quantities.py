"""The rule about figures that are no ratios, and the quantities that it reads.

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
from eval.claims.measurements import Measurements, MissingRowsError, NamedLine, SomeSeries, Trained, by_seed, rows_of
from eval.query import Measured
from eval.rows import Quality
from eval.statistics import Contrast, constant_relative_spread, holm, paired_difference, scaling_exponent
from zoo.attention.catalog import variant_mapping
from zoo.attention.function import function_of
from zoo.config.errors import require


class Absolute(Rule):
    """A figure that is no ratio.

    Attributes:
        quantity: What is read, by the names in `QUANTITIES`.
        of: Whether each cell counts, their mean, or the longest cell alone, whose figure has an interval.
        series: Whose, and of some quantities what it is compared with.
        lengths: Those that are read; of a series, each has to be there.
        line: Of the source's own table.
        model: Which the figure is about; another model's settles nothing. None for any.
        variants: Trained ones, the first of which the claim is about.
        given: What arithmetic takes.
    """

    quantity: str
    kind: Kinds = ("any",)
    show: Show = "largest"
    of: Literal["cells", "mean", "longest"] = "cells"
    series: SomeSeries = ()
    lengths: tuple[int, ...] = ()
    line: NamedLine = Field(default_factory=dict)
    model: str | None = None
    variants: tuple[str, ...] = ()
    given: Mapping[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> Self:
        require(self.quantity in QUANTITIES, "quantity", "be one", self.quantity, allowed=QUANTITIES)
        there = {"series": len(self.series), "lengths": len(self.lengths), "line": 1 if self.line else 0}
        there |= {"variants": len(self.variants), **dict.fromkeys(self.given, 1)}
        for name, number in QUANTITIES[self.quantity].takes.items():
            require(there.get(name, 0) >= number, name, f"be {number} for {self.quantity}", there.get(name, 0))
        return self

    def read(self, measurements: Measurements) -> Reading:
        """The quantity, in all rows that have it."""
        quantity = QUANTITIES[self.quantity]
        of = self.quantity.replace("_", " ")
        return dataclasses.replace(quantity.read(self, measurements), of=of, form=quantity.form, counted=True)

    def cells(self, measurements: Measurements) -> list[Measured]:
        """The rows that are asked for, of the first series or of all."""
        if self.lengths and self.series:
            return [measurements.timed(self.where.at(length), self.series[0]) for length in self.lengths]
        places = [self.where.at(length) for length in self.lengths] or [self.where]
        return [each for where in places for each in measurements.find(where, *self.series[:1])]


Read = Callable[[Absolute, Measurements], Reading]


def _each_cell(of: Callable[[Measured, float], float | None]) -> Read:
    """Reads what follows from a row and its seconds, of each cell, of their mean, or of the longest cell."""

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
            form = QUANTITIES[rule.quantity].form
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

    return read


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
    slope = scaling_exponent(rule.line["lengths"], [[seconds] for seconds in rule.line["seconds"]])
    return Reading(figures=[("power of N by least squares from the printed single means", slope)])


def _p_value(rule: Absolute, measurements: Measurements) -> Reading:
    """Welch's, at the first length, and whether the first series is faster there."""
    pairs = measurements.by_length(rule.series[0], rule.series[1], rule.where, rule.lengths[:1])
    tested = {length: p for length, pair in pairs.items() if (p := pair.ratio.p_value) is not None}
    length = rule.lengths[0]
    if length not in tested:
        raise MissingRowsError("a single sample, or equal ones, cannot be tested")
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    ratio = pairs[length].ratio
    name = f"Welch's p at N={length} after Holm's correction over {len(tested)} lengths"
    figures, beside = [(name, _point(corrected[length]))], [f"ratio {with_interval(ratio)}, below 1 if faster"]
    return Reading(figures=figures, holds=ratio.value < 1, beside=beside, rows=rows_of(pairs.values()))


def _saving(size: Callable[[Measured], int | None]) -> Read:
    """Reads what share of bytes a series saves over another, in each group that holds both."""

    def read(rule: Absolute, measurements: Measurements) -> Reading:
        held: list[dict[str, Measured]] = [{}, {}]
        for own, series in zip(held, rule.series[:2], strict=True):
            for each in measurements.find(rule.where, series):
                if size(each):
                    own.setdefault(f"{each.cell.suite}, {each.cell.group}", each)
        figures, rows = [], []
        for name in held[0].keys() & held[1].keys():
            both = [own[name] for own in held]
            ours, theirs = (size(each) or 1 for each in both)
            figures.append((f"{name} ({ours:,} against {theirs:,} bytes)", _point(1 - ours / theirs)))
            rows += both
        if not figures:
            raise MissingRowsError(
                f"no bytes of both {' and '.join(each.label for each in rule.series)} ({rule.where})"
            )
        return Reading(figures=sorted(figures, key=lambda figure: figure[0]), rows=rows)

    return read


def _quality_cost(rule: Absolute, measurements: Measurements) -> Reading:
    """Bits per byte of the first variant minus those of the second; beside them accuracy."""
    found = [_trained(rule, measurements, metric) for metric in ("bits_per_byte", "accuracy")]
    losses, recall = ([(name, paired_difference(each.first, each.second)) for name, each in own] for own in found)
    if not losses:
        raise MissingRowsError(
            f"no bits per byte of {' and '.join(rule.variants)} at equal tokens, of two seeds at least"
        )
    costs = [known(each)[0] > 0 for _, each in losses] + [known(each)[1] < 0 for _, each in recall]
    beside = [f"{name}: {with_interval(each, '{:.3f}')}" for name, each in recall]
    rows = [row for own in found for _, each in own for row in each.rows]
    return Reading(figures=losses, holds=any(costs), beside=beside, rows=rows)


def _trained(rule: Absolute, measurements: Measurements, metric: str) -> list[tuple[str, Trained]]:
    """What both variants have, for every task and setting that both were trained on."""

    def read(quality: Quality) -> tuple[tuple[object, ...], float] | None:
        # Of the whole task only: where along an axis the difference lies is another table.
        asked = quality.quantity == metric and quality.budget == "equal_tokens" and quality.is_overall
        if quality.value is None or not asked:
            return None
        steps = "" if quality.steps is None else f", {quality.steps} steps"
        name = f"{' minus '.join(rule.variants)}, {metric} of {quality.task} ({quality.model}, {quality.data}{steps})"
        return (name, quality.trained_on, quality.measured_on, quality.terms), quality.value

    # What an evaluation says counts before a training's own last value of the same seed.
    rows = sorted(measurements.rows, key=lambda row: row.quality is None or not row.quality.is_of_training)
    return [(setting[0], trained) for setting, trained in by_seed(rows, rule.variants[:2], read).items()]


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


class _Quantity(NamedTuple):
    """How a quantity is read and printed, and which fields of the rule it takes, how many of each."""

    read: Read
    form: str
    takes: Mapping[str, int]


QUANTITIES = {
    "tokens_per_second": _Quantity(_each_cell(_tokens_per_second), "{:,.0f} tokens/s", {"series": 1}),
    "milliseconds": _Quantity(_each_cell(lambda _, seconds: 1000 * seconds), "{:.2f} ms", {"series": 1}),
    "utilisation": _Quantity(_each_cell(_utilisation), "{:.1%}", {"series": 1}),
    "spread": _Quantity(_each_cell(lambda each, _: each.times.coefficient_of_variation), "{:.1%}", {}),
    "slope": _Quantity(_slope, "{:.2f}", {"series": 1, "lengths": 2}),
    "printed_slope": _Quantity(_printed_slope, "{:.2f}", {"line": 1}),
    "p_value": _Quantity(_p_value, "{:.2g}", {"series": 2, "lengths": 1}),
    "peak_saving": _Quantity(_saving(lambda each: each.peak_bytes), "{:.1%}", {"series": 2}),
    "cache_saving": _Quantity(_saving(lambda each: each.cache_bytes), "{:.1%}", {"series": 2}),
    "output_difference": _Quantity(_output_difference, "{:.2g}", {"series": 1}),
    "quality_cost": _Quantity(_quality_cost, "{:.3f}", {"variants": 2}),
    "logit_difference": _Quantity(_logit_difference, "{:.1e}", {"variants": 1}),
    "printed_spread": _Quantity(_printed_spread, "", {"num_means": 1, "share": 1}),
    "score_mebibytes": _Quantity(_score_mebibytes, "{:.0f} MiB", {"num_heads": 1, "length": 1}),
    "half_precision_elu": _Quantity(_half_precision_elu, "{:.6f}", {"x": 1}),
}
