"""Claims about one time over another in the published layers: figures, directions, ties and trends."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from eval.claims import words
from eval.claims.apple import only_on_metal
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence, Pair, Series, Setting
from eval.claims.series import (
    BACKWARD,
    CAUSAL_CHUNKED,
    CAUSAL_CUMSUM,
    FORWARD,
    FUSED,
    GQA,
    LEGACY,
    LINEAR,
    MANUAL,
    MQA,
    block_sparse,
    window,
)
from eval.claims.verdict import is_tie, known, may_tie, overlaps, same_figure, same_side, ties, verdict
from eval.statistics.ratios import holm
from eval.statistics.scaling import scaling_exponent

Kind = Literal["figure", "above", "below", "tie"]
Beside = tuple[Series, Series, Setting]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioJudge:
    """Judges one ratio, or the same ratio at several lengths, all of which have to agree.

    Attributes:
        numerator: Whose time is above.
        denominator: Whose time is below.
        lengths: The published ones.
        kind: "figure", or the side of 1 on which the ratio is claimed to lie, or a tie.
        published: The figures, one for each length, where they are claimed.
        defect: Why the published times are of different functions; None if they are not.
        note: What else a reader must know.
        besides: Further ratios to state.
    """

    numerator: Series
    denominator: Series
    lengths: tuple[int, ...]
    kind: Kind
    published: tuple[float, ...] = ()
    defect: str | None = None
    note: str = ""
    besides: tuple[Beside, ...] = ()

    def __call__(self, evidence: Evidence) -> Judgement:
        pairs = {n: evidence.pair(self.numerator, self.denominator, FORWARD.at(n)) for n in self.lengths}
        held = [self._holds(pairs[n], index) for index, n in enumerate(self.lengths)]
        like_for_like = verdict(all(held))
        worst = pairs[self.lengths[held.index(False) if False in held else -1]]
        reason = f"{self.numerator.label} over {self.denominator.label}, {self._rule()}. {self.note}"
        open_ones = [self._is_open(pairs[n], index) for index, n in enumerate(self.lengths) if not held[index]]
        if open_ones and all(open_ones):
            reason = f"{reason.strip()} Undecided: {self._what_is_open()}."
        if self.defect is not None:
            reason = f"{self.defect} Like for like: {like_for_like}; {reason}"
        further = [words.beside(evidence, *each) for each in self.besides]
        ratio = worst.ratio
        return Judgement(
            verdict=like_for_like if self.defect is None else "different functions compared",
            ours="; ".join([words.at_lengths(pairs), *further]),
            value=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
            reason=reason.strip(),
            evidence=tuple(identity for pair in pairs.values() for identity in pair.identities),
        )

    def _holds(self, pair: Pair, index: int) -> bool:
        low, high = known(pair.ratio.low, pair.ratio.high)
        if self.kind == "figure":
            return same_figure(low, high, self.published[index])
        return ties(low, high) if self.kind == "tie" else same_side(low, high, above=self.kind == "above")

    def _is_open(self, pair: Pair, index: int) -> bool:
        """Whether a ratio that does not bear the claim out does not refute it either."""
        low, high = known(pair.ratio.low, pair.ratio.high)
        if self.kind in ("above", "below"):
            return low <= 1 <= high
        claims_tie = self.kind == "tie" or is_tie(self.published[index])
        return may_tie(low, high) if claims_tie else overlaps(low, high, self.published[index]) and low <= 1 <= high

    def _what_is_open(self) -> str:
        if self.kind in ("above", "below"):
            return "an interval holds 1"
        if self.kind == "figure" and not any(is_tie(figure) for figure in self.published):
            return "an interval holds both the published figure and 1"
        return "an interval reaches beyond 10 % of 1"

    def _rule(self) -> str:
        rules = {
            "figure": "published " + ", ".join(f"{figure:.2f}" for figure in self.published),
            "above": "claimed to be above 1",
            "below": "claimed to be below 1",
            "tie": "claimed to be about 1",
        }
        return rules[self.kind]


def _trend(
    numerator: Series, denominator: Series, lengths: tuple[int, ...], defect: str | None
) -> Callable[[Evidence], Judgement]:
    """Judges whether a ratio grows with the length: the slope of its logarithm, over all measured lengths."""

    def judge(evidence: Evidence) -> Judgement:
        for length in lengths:
            evidence.pair(numerator, denominator, FORWARD.at(length))
        pairs = evidence.by_length(numerator, denominator, FORWARD)
        slope = scaling_exponent(list(pairs), [pair.ratios for pair in pairs.values()])
        low, _ = known(slope.low, slope.high)
        like_for_like = verdict(low > 0)
        reason = "The ratio grows with the power of N that stands here; above 0 is growth."
        return Judgement(
            verdict=like_for_like if defect is None else "different functions compared",
            ours=f"{words.at_lengths(pairs)}; slope {words.with_interval(slope.slope, slope.low, slope.high)}",
            value=slope.slope,
            low=slope.low,
            high=slope.high,
            reason=reason if defect is None else f"{defect} Like for like: {like_for_like}. {reason}",
            evidence=tuple(identity for pair in pairs.values() for identity in pair.identities),
        )

    return judge


def _masked_optimal(evidence: Evidence) -> Judgement:
    """Whether at each length the masked window beats, or ties with, each way to leave the other scores out."""
    masked, found, beaten = window("masked"), [], []
    for implementation in ("chunked", "gather_slices", "gather_index"):
        other = window(implementation)
        for length in (128, 256):
            evidence.pair(other, masked, FORWARD.at(length))
        pairs = evidence.by_length(other, masked, FORWARD)
        found.append((other.label, pairs))
        for length, pair in pairs.items():
            if known(pair.ratio.low, pair.ratio.high)[1] < 1:
                beaten.append((length, other.label, pair))
    fastest = min((pair for _, pairs in found for pair in pairs.values()), key=lambda pair: pair.ratio.ratio)
    where = ", ".join(f"{label} at N={length}" for length, label, _ in beaten)
    judgement = Judgement(
        verdict=verdict(not beaten),
        ours=" | ".join(f"{label} over masked: {words.at_lengths(pairs)}" for label, pairs in found),
        value=fastest.ratio.ratio,
        low=fastest.ratio.low,
        high=fastest.ratio.high,
        reason=f"Beaten by {where}." if beaten else "No other implementation of the same window is faster.",
        evidence=tuple(identity for _, pairs in found for pair in pairs.values() for identity in pair.identities),
    )
    return only_on_metal(evidence, judgement, told_here=True)


def _significance(evidence: Evidence) -> Judgement:
    """Welch's p-value at N=1024, corrected over the lengths that were tested."""
    evidence.pair(block_sparse(), MANUAL, FORWARD.at(1024))
    pairs = evidence.by_length(block_sparse(), MANUAL, FORWARD)
    tested = {n: p for n, pair in pairs.items() if (p := pair.ratio.p_value) is not None}
    if 1024 not in tested:
        raise MissingRowsError("a single sample, or equal ones, cannot be tested")
    p_value = dict(zip(tested, holm(list(tested.values())), strict=True))[1024]
    ratio = pairs[1024].ratio
    faster = p_value < 0.001 and ratio.ratio < 1
    return Judgement(
        verdict="different functions compared",
        ours=f"p = {p_value:.2g} after Holm's correction over {len(tested)} lengths; ratio {words.times(pairs[1024])}",
        value=p_value,
        reason=f"{AVERAGED} Like for like (faster, p < 0.001): {verdict(faster)}.",
        evidence=tuple(identity for pair in pairs.values() for identity in pair.identities),
    )


PADDED = (
    "The published gather pads keys with -1e9 and wins or loses rows by the sign of the queries' sum; its window has "
    "W keys and the masked one's W + 1. Ours compute one window in different ways: a query and the W - 1 keys on "
    "either side of it, 2 W - 1 in all."
)
AVERAGED = (
    "The published block-sparse layer averages two softmaxes, with one global token exactly 0.5 local + 0.5 v[0]: "
    "a cheaper function. Ours has one joint softmax over the global tokens, the query's own block and the blocks "
    "beside it."
)
UNTRANSPOSED = "The published GQA reshapes values without the transpose and computes another function."
BY_DESIGN = "Two mechanisms by design: what each is worth is told by the quality rows."
BOTH_FUSED = "Both fused here, so that only the heads differ. " + BY_DESIGN


def _gather(lengths: tuple[int, ...], kind: Kind, published: tuple[float, ...] = ()) -> RatioJudge:
    further = [
        (window(name), window("masked"), setting.at(lengths[-1]))
        for setting in (FORWARD, BACKWARD)
        for name in ("gather_slices", "gather_index", "chunked")
    ]
    return RatioJudge(
        numerator=window("gather_slices"),
        denominator=window("masked"),
        lengths=lengths,
        kind=kind,
        published=published,
        defect=PADDED,
        besides=tuple(further[1:]),
    )


def _blocks(lengths: tuple[int, ...], kind: Kind, published: tuple[float, ...] = ()) -> RatioJudge:
    at = FORWARD.at(lengths[-1])
    besides = ((FUSED, block_sparse(), at), (MANUAL, LEGACY, at), (MANUAL, block_sparse(), BACKWARD.at(lengths[-1])))
    return RatioJudge(
        numerator=MANUAL,
        denominator=block_sparse(),
        lengths=lengths,
        kind=kind,
        published=published,
        defect=AVERAGED,
        besides=besides,
    )


def _against_mha(series: Series, lengths: tuple[int, ...], kind: Kind, published: tuple[float, ...] = ()) -> RatioJudge:
    linear = series is LINEAR
    return RatioJudge(
        numerator=MANUAL if linear else FUSED,
        denominator=series,
        lengths=lengths,
        kind=kind,
        published=published,
        defect=UNTRANSPOSED if series is GQA else None,
        note=BY_DESIGN if linear else BOTH_FUSED,
        besides=((FUSED if linear else MANUAL, series, FORWARD.at(lengths[-1])),),
    )


def _causal(length: int, published: float) -> RatioJudge:
    return RatioJudge(
        numerator=CAUSAL_CUMSUM,
        denominator=LINEAR,
        lengths=(length,),
        kind="figure",
        published=(published,),
        note="Causal and bidirectional differ by design.",
        besides=((CAUSAL_CHUNKED, LINEAR, FORWARD.at(length)), (CAUSAL_CUMSUM, CAUSAL_CHUNKED, FORWARD.at(length))),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "gather-slower": _gather((128, 256), "above"),
    "gather-128": _gather((128,), "figure", (5.7,)),
    "gather-256": _gather((256,), "figure", (7.3,)),
    "gather-worse": _trend(window("gather_slices"), window("masked"), (128, 256), PADDED),
    "masked-optimal": _masked_optimal,
    "gather-heat-map": RatioJudge(
        numerator=MANUAL,
        denominator=window("gather_slices"),
        lengths=(128, 256),
        kind="figure",
        published=(0.147, 0.115),
        defect=PADDED,
    ),
    "blocksparse-1.9": _blocks((1024,), "figure", (1.90,)),
    "blocksparse-p": _significance,
    "blocksparse-below": _blocks((128, 256), "below"),
    "blocksparse-tie": _blocks((512,), "tie"),
    "block-32-beats-64": RatioJudge(
        numerator=block_sparse(64),
        denominator=block_sparse(32),
        lengths=(128, 256, 512, 1024),
        kind="above",
        defect=AVERAGED,
        note="Larger blocks also attend to more keys: two patterns by design.",
    ),
    "linear-1.59": _against_mha(LINEAR, (1024,), "figure", (1.59,)),
    "linear-below": _against_mha(LINEAR, (128, 256, 512), "below"),
    "causal-linear-128": _causal(128, 1.63),
    "causal-linear-256": _causal(256, 1.75),
    "causal-linear-512": _causal(512, 2.96),
    "causal-linear-grows": _trend(CAUSAL_CUMSUM, LINEAR, (128, 256, 512), None),
    "causal-linear-avoid": RatioJudge(
        numerator=CAUSAL_CHUNKED,
        denominator=LINEAR,
        lengths=(512,),
        kind="figure",
        published=(2.96,),
        note="The claim is about the mechanism: chunked is its implementation here, published are cumulative sums.",
        besides=((CAUSAL_CUMSUM, LINEAR, FORWARD.at(512)),),
    ),
    "mha-baseline": RatioJudge(
        numerator=MANUAL,
        denominator=FUSED,
        lengths=(128, 256, 512, 1024),
        kind="tie",
        note="The published baseline is unfused; where fused attention is faster, every speed-up over it is inflated.",
    ),
    "gqa-20-percent": _against_mha(GQA, (128,), "figure", (1.20,)),
    "mqa-slower-128": _against_mha(MQA, (128,), "below"),
    "mqa-256": _against_mha(MQA, (256,), "figure", (1.03,)),
    "mqa-512": _against_mha(MQA, (512,), "figure", (1.08,)),
    "mqa-1024": _against_mha(MQA, (1024,), "figure", (1.10,)),
}
