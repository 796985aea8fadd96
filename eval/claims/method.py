"""Claims about method, explanations and absolute times."""

from collections.abc import Callable, Mapping

import numpy as np

from eval.claims import words
from eval.claims.apple import only_on_metal
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, cell_of, timing_of
from eval.claims.published import table
from eval.claims.series import FORWARD, MANUAL
from eval.claims.verdict import known, overlaps, verdict
from eval.statistics.suspicion import constant_relative_spread


def _spread(evidence: Evidence) -> Judgement:
    """The largest coefficient of variation at the published lengths."""
    found = [row for length in table.LENGTHS for row in evidence.find(FORWARD.at(length), lambda cell: True)]
    rows = [row for row in found if row.timing is not None]
    spreads = [(spread, row) for row in rows if (spread := timing_of(row).coefficient_of_variation) is not None]
    if not spreads:
        raise MissingRowsError(f"no rows with a spread ({FORWARD})")
    values = [spread for spread, _ in spreads]
    worst, row = max(spreads, key=lambda each: each[0])
    below = sum(value < 0.06 for value in values)
    judgement = Judgement(
        verdict=verdict(worst < 0.06),
        ours=f"{below} of {len(values)} cells below 6 %; largest {worst:.1%} "
        f"({cell_of(row).variant}, N={cell_of(row).length}), median {np.median(values):.1%}",
        value=worst,
        reason="Standard deviation over mean of the rounds, at the published lengths; one slow round is enough "
        "to break 6 %.",
        evidence=tuple(each.identity for _, each in spreads),
    )
    return only_on_metal(evidence, judgement, told_here=True)


def _intervals(evidence: Evidence) -> Judgement:
    """Whether spreads look measured: the published ones beside ours."""
    constant = constant_relative_spread([table.RELATIVE_SPREAD] * table.NUM_MEANS)
    rows = [row for row in evidence.speed if row.timing is not None]
    ours = [spread for row in rows if (spread := timing_of(row).coefficient_of_variation) is not None]
    beside = f"ours: {min(ours):.1%} to {max(ours):.1%} over {len(ours)} rows" if ours else "ours: not measured"
    if constant_relative_spread(ours):
        beside += ", constant as well"
    return Judgement(
        verdict=verdict(not constant),
        ours=f"the published data hold {table.NUM_MEANS} single means, each with a deviation of "
        f"{table.RELATIVE_SPREAD:.0%}; {beside}",
        reason="No clock gives one relative spread in every cell: the published intervals are synthetic.",
        evidence=tuple(row.identity for row in rows),
    )


def _m4_times(evidence: Evidence) -> Judgement:
    row = evidence.timed(MANUAL, FORWARD.at(1024))
    timing = timing_of(row)
    low, high = known(timing.interval_low, timing.interval_high)
    judgement = Judgement(
        verdict=verdict(overlaps(1000 * low, 1000 * high, 4.38)),
        ours=words.with_interval(1000 * timing.median_seconds, 1000 * low, 1000 * high) + " ms",
        value=1000 * timing.median_seconds,
        low=1000 * low,
        high=1000 * high,
        reason="Milliseconds of another chip are another figure.",
        evidence=(row.identity,),
    )
    return only_on_metal(evidence, judgement)


def _matrix_units(evidence: Evidence) -> Judgement:
    """No rows settle it: MLX has no way to run on those units and leaves no trace of which unit ran."""
    rows = [evidence.timed(MANUAL, FORWARD.at(length)) for length in table.LENGTHS]
    return Judgement(
        verdict="not measurable on this device",
        ours=f"dense attention timed at {len(rows)} lengths, on the {evidence.backend} back end",
        reason="MLX computes on Apple's GPU, while AMX belongs to the CPU cores: no time of it can show what they do.",
        evidence=tuple(row.identity for row in rows),
    )


def _feature_map(evidence: Evidence) -> Judgement:
    """The published formula in half precision; arithmetic, no rows needed."""
    x = np.float16(-9)
    elu = np.exp(x) - np.float16(1)
    as_published, rearranged = float(elu + np.float16(1)), float(np.exp(x))
    return Judgement(
        verdict=verdict(as_published >= 0),
        ours=f"elu(-9) + 1 in float16: {as_published:.6f} as published, {rearranged:.6f} as exp(x) for x < 0",
        value=as_published,
        reason="Non-negative, as stated, but in half precision no longer positive: computed as (exp(x) - 1) + 1, small "
        "weights round to zero. Ours takes exp(x) below zero.",
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "spread": _spread,
    "intervals": _intervals,
    "m4-times": _m4_times,
    "amx": _matrix_units,
    "feature-map": _feature_map,
}
