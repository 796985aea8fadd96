"""Claims that advise or explain: judged by what would have to hold if the advice or the explanation were right."""

from collections.abc import Callable, Mapping

from eval.claims import words
from eval.claims.choices import SAME_WORK
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Setting, cell_of, timing_of
from eval.claims.published import table
from eval.claims.ratios import AVERAGED, BOTH_FUSED, UNTRANSPOSED, RatioJudge
from eval.claims.series import CAUSAL_CHUNKED, FORWARD, FUSED, GQA, MANUAL, MQA, window
from eval.claims.verdict import known, same_side, ties, verdict
from eval.rows import Cell

CAUSAL = Setting(suite="transfer", mode="forward")


def _dense_tie(evidence: Evidence) -> Judgement:
    """Whether neither way of sharing keys and values matters at 256 and 512."""
    pairs = {
        (series.label, length): evidence.pair(FUSED, series, FORWARD.at(length))
        for series in (GQA, MQA)
        for length in (256, 512)
    }
    worst = max(pairs.values(), key=lambda pair: abs(pair.ratio.ratio - 1))
    held = all(ties(*known(pair.ratio.low, pair.ratio.high)) for pair in pairs.values())
    return Judgement(
        verdict="different functions compared",
        ours="; ".join(f"fused MHA over {label}, N={n}: {words.times(pair)}" for (label, n), pair in pairs.items()),
        value=worst.ratio.ratio,
        low=worst.ratio.low,
        high=worst.ratio.high,
        reason=f"{UNTRANSPOSED} Like for like: {verdict(held)}; every interval has to lie within 10 % of 1. "
        f"{BOTH_FUSED}",
        evidence=tuple(identity for pair in pairs.values() for identity in pair.identities),
    )


def _causal_blocks(cell: Cell) -> bool:
    if cell.attention is None or not cell.causal:
        return False
    mapping = cell.attention_mapping
    return (mapping.get("mechanism"), mapping.get("implementation")) == ("block_sparse", "blocked")


def _blocks_instead(evidence: Evidence) -> Judgement:
    """Whether causal block-sparse attention is faster than causal linear attention wherever both were timed."""
    pairs = evidence.pairs(CAUSAL_CHUNKED.holds, _causal_blocks, CAUSAL)
    if not pairs:
        raise MissingRowsError(f"causal linear and causal block-sparse were not timed in one group ({CAUSAL})")
    held = all(same_side(*known(pair.ratio.low, pair.ratio.high), above=True) for pair in pairs)
    least = min(pairs, key=lambda pair: pair.ratio.ratio)
    return Judgement(
        verdict="different functions compared",
        ours="causal linear (chunked) over causal block-sparse: "
        + "; ".join(f"{pair.cell.group}: {words.times(pair)}" for pair in pairs),
        value=least.ratio.ratio,
        low=least.ratio.low,
        high=least.ratio.high,
        reason=f"{AVERAGED} It leaks the future, and a mask was never timed. Like for like (block-sparse faster in "
        f"every cell): {verdict(held)}. Our linear attention is chunked; the advice is against cumulative sums. Our "
        "blocks have the variant's own number of global tokens, and look back only.",
        evidence=tuple(identity for pair in pairs for identity in pair.identities),
    )


def _broadcasting(evidence: Evidence) -> Judgement:
    """An explanation of MQA's slowness: nothing is explained where it is not slow, and no time shows a cause."""
    pair = evidence.pair(FUSED, MQA, FORWARD.at(128))
    low, high = known(pair.ratio.low, pair.ratio.high)
    slow = same_side(low, high, above=False)
    absent = "whether it is slow here is undecided" if low <= 1 else "the slowness to be explained is not there"
    return Judgement(
        verdict="not measurable on this device" if slow else verdict(False),
        ours=f"fused MHA over MQA, N=128: {words.times(pair)}",
        value=pair.ratio.ratio,
        low=low,
        high=high,
        reason=f"A time does not show what it was spent on{'' if slow else f', and {absent}'}. {BOTH_FUSED}",
        evidence=pair.identities,
    )


def _gather_misses(evidence: Evidence) -> Judgement:
    """No rows settle it: nothing here counts cache misses; the number of operations stands beside."""
    rows = [evidence.timed(window("gather_slices"), FORWARD.at(length)) for length in (128, 256)]
    counted = [(cell_of(row).length, None if row.work is None else row.work.graph_nodes) for row in rows]
    return Judgement(
        verdict="not measurable on this device",
        ours="; ".join(
            f"N={length}: {'uncounted' if nodes is None else nodes} operations" for length, nodes in counted
        ),
        reason="MLX counts no cache misses. The published gather makes two slices a token and a stack: it is timed by "
        "the number of operations that are started.",
        evidence=tuple(row.identity for row in rows),
    )


def _cache_explains(evidence: Evidence) -> Judgement:
    """No rows settle it: nothing here counts cache misses."""
    rows = [evidence.timed(MANUAL, FORWARD.at(length)) for length in table.LENGTHS]
    return Judgement(
        verdict="not measurable on this device",
        ours="; ".join(f"N={cell_of(row).length}: {1000 * timing_of(row).median_seconds:.2f} ms" for row in rows),
        reason="A time does not show which memory it was spent on, and MLX counts no cache misses. The arithmetic "
        "alone does not bear it out: the scores are 32 MiB, not 4.",
        evidence=tuple(row.identity for row in rows),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "dense-tie": _dense_tie,
    "mqa-broadcasting": _broadcasting,
    "window-128-over-64": RatioJudge(
        numerator=window("masked", 64),
        denominator=window("masked", 128),
        lengths=(256,),
        kind="above",
        note=SAME_WORK,
    ),
    "causal-blocks-instead": _blocks_instead,
    "elbow-cache": _cache_explains,
    "gather-cache": _gather_misses,
}
