"""Claims about growth with the length: scaling exponents and the elbow."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from eval.claims import words
from eval.claims.claim import Judgement
from eval.claims.evidence import Evidence, Series, samples
from eval.claims.published import table
from eval.claims.ratios import AVERAGED
from eval.claims.series import FORWARD, LINEAR, MANUAL, block_sparse
from eval.claims.verdict import SLOPE_TOLERANCE, known, same_figure, same_slope, verdict
from eval.statistics.contrasts import contrast, logarithms
from eval.statistics.ratios import unpaired_ratio
from eval.statistics.scaling import scaling_exponent


def _own_table(line: str, published: float) -> Callable[[Evidence], Judgement]:
    """Judges a slope of the text by the table beside it; no rows needed."""

    def judge(evidence: Evidence) -> Judgement:
        lengths, seconds = table.measured(line)
        slope = scaling_exponent(lengths, [[each] for each in seconds]).slope
        return Judgement(
            verdict=verdict(same_slope(slope, slope, published)),
            ours=f"{slope:.2f} by least squares from the printed milliseconds of {line}",
            value=slope,
            reason=f"Computed from the document's own table; the text says {published}. Single means have no interval.",
        )

    return judge


def _measured(series: Series, published: float, defect: str | None) -> Callable[[Evidence], Judgement]:
    def judge(evidence: Evidence) -> Judgement:
        rows = [evidence.timed(series, FORWARD.at(length)) for length in table.LENGTHS]
        slope = scaling_exponent(table.LENGTHS, [samples(row) for row in rows])
        low, high = known(slope.low, slope.high)
        like_for_like = verdict(same_slope(low, high, published))
        reason = f"N = 128 to 1024, published {published} give or take {SLOPE_TOLERANCE}."
        return Judgement(
            verdict=like_for_like if defect is None else "different functions compared",
            ours=words.with_interval(slope.slope, low, high),
            value=slope.slope,
            low=low,
            high=high,
            reason=reason if defect is None else f"{defect} Like for like: {like_for_like}. {reason}",
            evidence=tuple(row.identity for row in rows),
        )

    return judge


def _elbow_figure(evidence: Evidence) -> Judgement:
    rows = [evidence.timed(MANUAL, FORWARD.at(length)) for length in table.LENGTHS]
    steps = [unpaired_ratio(samples(after), samples(before)) for before, after in itertools.pairwise(rows)]
    low, high = known(steps[-1].low, steps[-1].high)
    return Judgement(
        verdict=verdict(same_figure(low, high, 2.55)),
        ours="; ".join(
            f"N={before} to {after}: {words.with_interval(step.ratio, step.low, step.high)}x"
            for (before, after), step in zip(itertools.pairwise(table.LENGTHS), steps, strict=True)
        ),
        value=steps[-1].ratio,
        low=low,
        high=high,
        reason="Published 1.37x, 1.21x, 2.55x; unfused, as published.",
        evidence=tuple(row.identity for row in rows),
    )


def _elbow(evidence: Evidence) -> Judgement:
    """How much steeper the last step is than the one before."""
    rows = [evidence.timed(MANUAL, FORWARD.at(length)) for length in (256, 512, 1024)]
    bend = contrast([logarithms(samples(row)) for row in rows], [1.0, -2.0, 1.0]).exponential
    low, high = known(bend.low, bend.high)
    return Judgement(
        verdict=verdict(low > 1),
        ours=f"the step to 1024 is {words.with_interval(bend.value, low, high)} times the step to 512",
        value=bend.value,
        low=low,
        high=high,
        reason="Published 2.55 / 1.21 = 2.1 times. Any fixed or linear cost beside a quadratic one bends upwards too: "
        "an elbow alone shows no cache.",
        evidence=tuple(row.identity for row in rows),
    )


def _no_cliff(evidence: Evidence) -> Judgement:
    """Whether block-sparse grows less from 512 to 1024 than MHA does."""
    series = (block_sparse(), MANUAL)
    rows = [evidence.timed(each, FORWARD.at(length)) for each in series for length in (512, 1024)]
    relative = contrast([logarithms(samples(row)) for row in rows], [-1.0, 1.0, 1.0, -1.0]).exponential
    low, high = known(relative.low, relative.high)
    return Judgement(
        verdict="different functions compared",
        ours=f"block-sparse's step is {words.with_interval(relative.value, low, high)} times MHA's",
        value=relative.value,
        low=low,
        high=high,
        reason=f"{AVERAGED} Like for like (below 1): {verdict(high < 1)}.",
        evidence=tuple(row.identity for row in rows),
    )


def _scores_in_cache(evidence: Evidence) -> Judgement:
    """What the scores of the published layer hold; arithmetic, no rows needed."""
    num_heads, length = 8, 1024
    score_bytes = num_heads * length**2 * np.dtype(np.float32).itemsize
    mebibytes = score_bytes / 2**20
    return Judgement(
        verdict=verdict(mebibytes <= 4),
        ours=f"{mebibytes:.0f} MiB for {num_heads} heads of {length} x {length} float32 scores",
        value=mebibytes,
        reason="Arithmetic. 4 MB is one head's share; and MLX ran on the GPU, not on the cores whose cache is meant.",
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "slope-mha": _measured(MANUAL, 1.73, None),
    "slope-mha-own": _own_table("MHA", 1.73),
    "slope-blocksparse": _measured(block_sparse(), 0.89, AVERAGED),
    "slope-blocksparse-own": _own_table("BlockSparse (bs=32)", 0.89),
    "slope-linear": _measured(LINEAR, 0.76, None),
    "slope-linear-own": _own_table("LinearAttn", 0.76),
    "elbow-2.55": _elbow_figure,
    "elbow": _elbow,
    "elbow-l2": _scores_in_cache,
    "blocksparse-no-cliff": _no_cliff,
}
