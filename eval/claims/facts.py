"""Rules about what is no time: bytes, outputs that are equal, arithmetic, and what nothing settles."""

import dataclasses

import numpy as np

from eval.claims.claim import ELSEWHERE, FIGURE_TOLERANCE, Outcome, Rule, point
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where, variant_kv_heads
from eval.claims.ratios import Ratio
from eval.query import Measured
from eval.rows import Cell
from eval.statistics import constant_relative_spread

# Caches are counted, not timed: they agree to the byte, or to the block in which a cache grows.
CACHE_TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caches(Rule):
    """What fewer key/value heads save: real caches of two variants in one model of the published heads."""

    where: Where
    num_heads: int
    num_kv_heads: int
    saving: float

    def outcome(self, measurements: Measurements) -> Outcome:
        fewer, full = self._caches(measurements, self.num_kv_heads), self._caches(measurements, self.num_heads)
        groups = sorted(set(fewer) & set(full))
        if not groups:
            raise MissingRowsError(
                f"no cache bytes of {self.num_kv_heads} and {self.num_heads} KV heads in one group of a model with "
                f"{self.num_heads} query heads ({self.where})"
            )
        held = {group: [each[group].cache_bytes or 0 for each in (fewer, full)] for group in groups}
        savings = {group: 1 - ours / theirs for group, (ours, theirs) in held.items()}
        worst = max(savings.values(), key=lambda saving: abs(saving - self.saving))
        return Outcome(
            held=abs(worst - self.saving) <= CACHE_TOLERANCE,
            ours="; ".join(
                f"{saving:.1%} at {fewer[group].cell.length} tokens ({ours:,} against {theirs:,} bytes)"
                for (group, saving), (ours, theirs) in zip(savings.items(), held.values(), strict=True)
            ),
            figure=point(worst),
            reason=f"Bytes held by the real decoding caches of one model with {self.num_heads} query heads; counted, "
            "so without an interval.",
            evidence=tuple(each[group].identity for group in groups for each in (fewer, full)),
        )

    def _caches(self, measurements: Measurements, num_kv_heads: int) -> dict[str, Measured]:
        found: dict[str, Measured] = {}
        for each in measurements.find(self.where):
            if each.cache_bytes and self._shares(each.cell, num_kv_heads):
                found.setdefault(each.cell.group, each)
        return found

    def _shares(self, cell: Cell, num_kv_heads: int) -> bool:
        whole = cell.num_heads == self.num_heads and cell.num_kv_heads in (None, self.num_heads)
        if cell.attention is None or not whole:
            return False
        mapping = cell.attention_mapping
        fused = (mapping.get("mechanism"), mapping.get("implementation")) == ("softmax", "fused")
        return fused and (variant_kv_heads(cell) or self.num_heads) == num_kv_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeakSaving(Rule):
    """The largest saving of peak memory by a series over another, wherever both were measured."""

    series: Series
    over: Series
    saving: float

    def outcome(self, measurements: Measurements) -> Outcome:
        ours, theirs = (
            {
                (each.cell.suite, each.cell.group): each
                for each in measurements.speed
                if series.holds(each.cell) and each.peak_bytes
            }
            for series in (self.series, self.over)
        )
        shared = [key for key in theirs if key in ours]
        if not shared:
            raise MissingRowsError(f"no peak bytes of {self.series.label} and {self.over.label} in one group")
        savings = {key: 1 - (ours[key].peak_bytes or 0) / (theirs[key].peak_bytes or 1) for key in shared}
        best = max(savings, key=lambda key: savings[key])
        return Outcome(
            held=savings[best] >= self.saving - FIGURE_TOLERANCE,
            ours=f"largest {savings[best]:.1%} ({', '.join(best)}), smallest {min(savings.values()):.1%}, over "
            f"{len(savings)} cells",
            figure=point(savings[best]),
            reason="Peaks of MLX's allocator in a process of its own, inputs and outputs included.",
            evidence=tuple(each[key].identity for key in shared for each in (theirs, ours)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EqualOutputs(Rule):
    """Whether what is held against something else gives its outputs to the last bit."""

    series: Series
    where: Where

    def outcome(self, measurements: Measurements) -> Outcome:
        # Where the outputs differ, there is no time, and the row says by how much.
        checks = [(each.identity, each.row.correctness) for each in measurements.find(self.where, self.series)]
        errors = [check.max_error for _, check in checks if check is not None and check.max_error is not None]
        if not errors:
            raise MissingRowsError(f"no outputs of {self.series.label} were compared ({self.where})")
        return Outcome(
            held=max(errors) == 0 and all(check is None or check.passed for _, check in checks),
            ours=f"largest difference {max(errors):.2g} over {len(errors)} cells",
            figure=point(max(errors)),
            reason="Compared in the same run, before the clock.",
            evidence=tuple(identity for identity, _ in checks),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unsettled(Rule):
    """An explanation that no row settles; what rows there are stands beside.

    Attributes:
        series: Whose.
        where: The cells.
        lengths: All of them.
        needs: What is to be explained; where it is not there, the explanation does not hold.
    """

    series: Series | None = None
    where: Where
    lengths: tuple[int, ...] = ()
    needs: Ratio | None = None

    def outcome(self, measurements: Measurements) -> Outcome:
        if self.needs is not None:
            found = self.needs.outcome(measurements)
            absent = "whether it is there is undecided" if found.undecided else "what is to be explained is not there"
            reason = "A time does not show what it was spent on" + ("." if found.held else f", and {absent}.")
            held = ELSEWHERE if found.held else False
            return dataclasses.replace(found, held=held, reason=reason, undecided="")
        assert self.series is not None, "rows stand beside, or a ratio that is to be explained"
        rows = measurements.timed_at(self.lengths, self.where, self.series)
        nodes = [each.row.work.graph_nodes if each.row.work else None for each in rows]
        texts = [
            f"N={each.cell.length}: {1000 * each.times.median_seconds:.2f} ms, {count or 'uncounted'} operations"
            for each, count in zip(rows, nodes, strict=True)
        ]
        return Outcome(held=ELSEWHERE, ours="; ".join(texts), evidence=tuple(each.identity for each in rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthetic(Rule):
    """Whether published spreads look measured: so many means, each with a deviation of one share of it; ours beside."""

    num_means: int
    spread: float

    def outcome(self, measurements: Measurements) -> Outcome:
        constant = constant_relative_spread([self.spread] * self.num_means)
        rows = [each for each in measurements.speed if each.timing is not None]
        ours = [spread for each in rows if (spread := each.times.coefficient_of_variation) is not None]
        beside = f"ours: {min(ours):.1%} to {max(ours):.1%} over {len(ours)} rows" if ours else "ours: not measured"
        return Outcome(
            held=not constant,
            ours=f"the published data hold {self.num_means} single means, each with a deviation of {self.spread:.0%}; "
            f"{beside}{', constant as well' if constant_relative_spread(ours) else ''}",
            evidence=tuple(each.identity for each in rows),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreBytes(Rule):
    """Whether the float32 scores of some heads fit into a cache; arithmetic, no rows needed."""

    num_heads: int
    length: int
    cache_mebibytes: float

    def outcome(self, measurements: Measurements) -> Outcome:
        mebibytes = self.num_heads * self.length**2 * np.dtype(np.float32).itemsize / 2**20
        shape = f"{self.num_heads} heads of {self.length} x {self.length} float32 scores"
        return Outcome(
            held=mebibytes <= self.cache_mebibytes, ours=f"{mebibytes:.0f} MiB for {shape}", figure=point(mebibytes)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfPrecisionElu(Rule):
    """Whether elu(x) + 1 stays at least 0 in float16; arithmetic, no rows needed."""

    x: float

    def outcome(self, measurements: Measurements) -> Outcome:
        x = np.float16(self.x)
        as_published, rearranged = float((np.exp(x) - np.float16(1)) + np.float16(1)), float(np.exp(x))
        return Outcome(
            held=as_published >= 0,
            ours=f"elu({self.x:g}) + 1 in float16: {as_published:.6f} as published, {rearranged:.6f} as exp(x) below 0",
            figure=point(as_published),
        )
