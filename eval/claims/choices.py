"""Claims about which mechanism is the fastest at which length."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Series, samples, timing_of
from eval.claims.published import table
from eval.claims.ratios import AVERAGED, UNTRANSPOSED
from eval.claims.series import FORWARD, FUSED, GQA, LINEAR, MANUAL, MQA, TILED, block_sparse, window
from eval.claims.verdict import verdict
from eval.rows import Row
from eval.statistics.ratios import paired_ratio

# The published field; a window masks whatever is outside, so that its three widths are the same work.
FIELD = (
    MANUAL,
    GQA,
    MQA,
    window("gather_slices"),
    window("masked", 32),
    window("masked", 64),
    window("masked", 128),
    block_sparse(32),
    block_sparse(64),
    LINEAR,
)
IMPLEMENTATIONS = (MANUAL, FUSED, TILED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Podium:
    """The fastest of a field at one length.

    Attributes:
        fastest: The series with the lowest median.
        tied: The series, the fastest included, whose paired ratio to the fastest has an interval with 1 in it.
        rows: Of the whole field.
    """

    fastest: Series
    tied: tuple[str, ...]
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        others = [label for label in self.tied if label != self.fastest.label]
        return self.fastest.label + (f" (tied: {', '.join(others)})" if others else "")


def podium(evidence: Evidence, field: Sequence[Series], length: int, needed: Sequence[Series]) -> Podium:
    """The fastest of those that were timed in one group, unfused MHA's.

    Raises:
        MissingRowsError: If one of the needed series has no times, or there is a single round.
    """
    together: dict[str, tuple[Series, Row]] = {}
    for series in field:
        try:
            together[series.label] = (series, evidence.pair(series, MANUAL, FORWARD.at(length)).numerator)
        except MissingRowsError:
            if series in needed:
                raise
    fastest, best = min(together.values(), key=lambda each: timing_of(each[1]).median_seconds)
    if len(samples(best)) < 2:
        raise MissingRowsError("a single sample has no interval")
    tied = tuple(label for label, (_, row) in together.items() if not paired_ratio(samples(row), samples(best)).differs)
    return Podium(fastest=fastest, tied=tied, rows=tuple(row for _, row in together.values()))


def _best(length: int, claimed: Series, defect: str | None) -> Callable[[Evidence], Judgement]:
    def judge(evidence: Evidence) -> Judgement:
        found = podium(evidence, FIELD, length, (MANUAL, claimed))
        holds = verdict(claimed.label in found.tied)
        reason = f"Claimed: {claimed.label}; a tie with the fastest counts."
        return Judgement(
            verdict=holds if defect is None else "different functions compared",
            ours=f"{found}, of {len(found.rows)} mechanisms and settings",
            reason=reason if defect is None else f"{defect} Like for like: {holds}. {reason}",
            evidence=tuple(row.identity for row in found.rows),
        )

    return judge


def _none_dominates(
    field: Sequence[Series], needed: Sequence[Series], statement: str
) -> Callable[[Evidence], Judgement]:
    """Judges whether nothing is the fastest, or tied with it, at every published length."""

    def judge(evidence: Evidence) -> Judgement:
        found = {length: podium(evidence, field, length, needed) for length in table.LENGTHS}
        always = set.intersection(*(set(each.tied) for each in found.values()))
        return Judgement(
            verdict=verdict(not always),
            ours="; ".join(f"N={length}: {each}" for length, each in found.items()),
            reason=statement + (f" Best or tied at every length: {', '.join(sorted(always))}." if always else ""),
            evidence=tuple(row.identity for each in found.values() for row in each.rows),
        )

    return judge


SAME_WORK = "The three masked windows are the same work here and there; the published 29 % between them is noise."

JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "best-128": _best(128, GQA, UNTRANSPOSED),
    "best-256": _best(256, window("masked", 128), SAME_WORK),
    "best-512": _best(512, MQA, None),
    "best-1024": _best(1024, block_sparse(32), AVERAGED),
    "none-dominates": _none_dominates(
        FIELD, (MANUAL, GQA, MQA, block_sparse(32), LINEAR), "Over the published field, speed alone."
    ),
    "adaptive": _none_dominates(
        IMPLEMENTATIONS, (MANUAL, FUSED), "Over the implementations of softmax attention: one function throughout."
    ),
}
