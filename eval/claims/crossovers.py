"""Claims about the length from which on one mechanism is faster than another."""

import math
from collections.abc import Callable, Mapping

from eval.claims import words
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Pair, Series, samples
from eval.claims.published import table
from eval.claims.ratios import AVERAGED, BY_DESIGN
from eval.claims.series import FORWARD, FUSED, LINEAR, MANUAL, block_sparse
from eval.claims.verdict import FIGURE_TOLERANCE, verdict
from eval.statistics.contrasts import MIN_BOOTSTRAP_SAMPLES
from eval.statistics.scaling import Crossover, crossover

LENGTHS = (128, 256, 512, 1024)
BLOCKS = "BlockSparse (bs=32)"


def _judge(
    candidate: Series, published: tuple[float, float], *, line: str, defect: str | None
) -> Callable[[Evidence], Judgement]:
    """Judges by unfused MHA, as published; fused MHA stands beside."""

    def judge(evidence: Evidence) -> Judgement:
        found, pairs = _crossover(evidence, candidate, MANUAL)
        like_for_like = verdict(_overlaps(found, published))
        claimed = f"{published[0]:.0f}" if published[0] == published[1] else f"{published[0]:.0f} to {published[1]:.0f}"
        reason = (
            f"Published {claimed}, give or take {FIGURE_TOLERANCE:.0%}; the published table's own lines cross at "
            f"{_own_crossing(line):.0f}."
        )
        if defect is not None:
            reason = f"{defect} Like for like: {like_for_like}. {reason}"
        return Judgement(
            verdict=like_for_like if defect is None else "different functions compared",
            ours=f"{_words(found)}; {candidate.label} over {MANUAL.label}: {words.at_lengths(pairs)}; over fused MHA: "
            f"{_beside(evidence, candidate)}",
            value=found.length,
            low=found.low,
            high=found.high,
            reason=reason if defect is not None else f"{reason} {BY_DESIGN}",
            evidence=tuple(identity for pair in pairs.values() for identity in pair.identities),
        )

    return judge


def _beside(evidence: Evidence, candidate: Series) -> str:
    try:
        return _words(_crossover(evidence, candidate, FUSED)[0])
    except MissingRowsError:
        return "not measured"


def _own_crossing(line: str) -> float:
    """Where a line of the published table passes MHA's, by the same interpolation."""
    lengths, seconds = table.measured(line)
    found = crossover(lengths, [[each] for each in seconds], [[each] for each in table.measured("MHA")[1]])
    assert found.length is not None, "the published lines cross"
    return found.length


def _later(evidence: Evidence) -> Judgement:
    """Whether linear attention crosses over later than block-sparse."""
    blocks, block_pairs = _crossover(evidence, block_sparse(), MANUAL)
    linear, linear_pairs = _crossover(evidence, LINEAR, MANUAL)
    # What is faster at short lengths crosses the other way.
    falls_behind = "short lengths" in (linear.faster_at, blocks.faster_at)
    later = not falls_behind and _ends(linear)[0] > _ends(blocks)[1]
    return Judgement(
        verdict="different functions compared",
        ours=f"linear: {_words(linear)}; block-sparse: {_words(blocks)}",
        value=linear.length,
        low=linear.low,
        high=linear.high,
        reason=f"{AVERAGED} Like for like (intervals apart): {verdict(later)}.",
        evidence=tuple(
            identity for pairs in (block_pairs, linear_pairs) for pair in pairs.values() for identity in pair.identities
        ),
    )


def _crossover(evidence: Evidence, candidate: Series, baseline: Series) -> tuple[Crossover, dict[int, Pair]]:
    for length in LENGTHS:
        evidence.pair(candidate, baseline, FORWARD.at(length))
    pairs = evidence.by_length(candidate, baseline, FORWARD)
    if min(len(samples(pair.numerator)) for pair in pairs.values()) < MIN_BOOTSTRAP_SAMPLES:
        raise MissingRowsError(f"fewer than {MIN_BOOTSTRAP_SAMPLES} rounds: the crossover has no interval")
    above, below = (
        [samples(pair.numerator) for pair in pairs.values()],
        [samples(p.denominator) for p in pairs.values()],
    )
    return crossover(list(pairs), above, below), pairs


def _overlaps(found: Crossover, published: tuple[float, float]) -> bool:
    # A crossing that the point estimates do not show is not reproduced, even if its interval allows one.
    if found.length is None or found.faster_at != "long lengths":
        return False
    low, high = _ends(found)
    return low <= published[1] * (1 + FIGURE_TOLERANCE) and high >= published[0] * (1 - FIGURE_TOLERANCE)


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


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "blocksparse-crossover": _judge(block_sparse(), (400, 600), line=BLOCKS, defect=AVERAGED),
    "linear-crossover": _judge(LINEAR, (768, 768), line="LinearAttn", defect=None),
    "linear-later": _later,
}
