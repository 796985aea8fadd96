"""Claims of PyTorch issue 181725: what a layer costs beyond its projections and its kernel, and what a layout costs."""

from collections.abc import Callable, Mapping

from eval.claims import words
from eval.claims.apple import like_for_like, on_metal, only_on_metal
from eval.claims.claim import Judgement, MissingRowsError, Verdict
from eval.claims.evidence import Evidence, Pair, Setting
from eval.claims.verdict import known, may_tie, overlaps, same_side, ties, verdict
from eval.rows import Cell
from eval.statistics.contrasts import contrast, logarithms

OTHER_SOFTWARE = (
    "Other software: published of PyTorch's layer on MPS, which at most of its shapes attends across; ours is this "
    "library's layer, attending to itself, over the same code without one."
)
OTHER_LAYOUTS = "Other software: published of PyTorch's projection on MPS; ours is MLX's."
OTHERS: Verdict = "different functions compared"
# What this library promises of its own layer.
TARGET = 1.02


def _layer(cell: Cell) -> bool:
    return cell.variant == "mha"


def _inlined(cell: Cell) -> bool:
    return cell.variant == "mha_hand_inlined"


def _pairs(evidence: Evidence, batch_size: int | None) -> list[Pair]:
    setting = Setting(suite="wrapper", batch_size=batch_size)
    pairs = evidence.pairs(_layer, _inlined, setting)
    if not pairs:
        raise MissingRowsError(f"no layer timed against inlined code ({setting})")
    return pairs


def _figures(pairs: list[Pair]) -> str:
    ratios = {pair.ratio.ratio: pair for pair in pairs}
    worst = ratios[max(ratios)]
    span = f"of this library's layer: {min(ratios):.2f}x to {max(ratios):.2f}x over {len(pairs)} cells"
    return f"{span}; largest {words.times(worst)} ({worst.cell.group})"


def _target(pairs: list[Pair]) -> str:
    ends = [known(pair.ratio.low, pair.ratio.high) for pair in pairs]
    met, missed = sum(high <= TARGET for _, high in ends), sum(low > TARGET for low, _ in ends)
    return (
        f"This library's own target is a ratio of at most {TARGET}: the interval lies below it in {met}, above it in "
        f"{missed} of {len(pairs)} cells."
    )


def _overhead(batch_size: int, published: tuple[float, float]) -> Callable[[Evidence], Judgement]:
    """Judges the largest overhead over the shapes of one batch size, on Apple's GPU."""

    def judge(evidence: Evidence) -> Judgement:
        pairs = _pairs(evidence, batch_size)
        worst = max(pairs, key=lambda pair: pair.ratio.ratio)
        low, high = known(worst.ratio.low, worst.ratio.high)
        agrees = low <= published[1] * 1.1 and high >= published[0] * 0.9 and same_side(low, high, above=True)
        return only_on_metal(
            evidence,
            Judgement(
                verdict=OTHERS,
                ours=_figures(pairs),
                value=worst.ratio.ratio,
                low=low,
                high=high,
                reason=f"{OTHER_SOFTWARE}{like_for_like(evidence, verdict(agrees))} The figure is the largest of "
                f"{len(pairs)} cells. {_target(pairs)}",
                evidence=tuple(identity for pair in pairs for identity in pair.identities),
            ),
        )

    return judge


def _shrinks(evidence: Evidence) -> Judgement:
    """Whether the overhead at B=1 is larger than at B=4."""
    single, batched = _pairs(evidence, 1), _pairs(evidence, 4)
    weights = [1 / len(single)] * len(single) + [-1 / len(batched)] * len(batched)
    gap = contrast([logarithms(pair.ratios) for pair in (*single, *batched)], weights).exponential
    low, high = known(gap.low, gap.high)
    return only_on_metal(
        evidence,
        Judgement(
            verdict=OTHERS,
            ours=f"of this library's layer: overhead at B=1 is {words.with_interval(gap.value, low, high)} times "
            "that at B=4",
            value=gap.value,
            low=low,
            high=high,
            reason=f"{OTHER_SOFTWARE}{like_for_like(evidence, verdict(low > 1))}",
            evidence=tuple(identity for pair in (*single, *batched) for identity in pair.identities),
        ),
    )


def _tie_in_every_cell(pairs: list[Pair]) -> str:
    """The verdict, like for like, with the cells that speak against it; those that leave it open are named apart."""
    ends = [(pair, known(pair.ratio.low, pair.ratio.high)) for pair in pairs]
    failing = [(pair, may_tie(low, high)) for pair, (low, high) in ends if not ties(low, high)]
    refuting = [pair for pair, is_open in failing if not is_open]
    if not failing:
        return f"Like for like: {verdict(True)}: every interval lies within 10 % of 1."
    named = "; ".join(f"{pair.cell.group}, {words.times(pair)}" for pair in refuting or [pair for pair, _ in failing])
    if refuting:
        return f"Like for like: {verdict(False)}; more than 10 % from 1: {named}."
    return f"Like for like: undecided; intervals that reach beyond 10 % of 1: {named}."


def _on_cpu(evidence: Evidence) -> Judgement:
    pairs = _pairs(evidence, None)
    worst = max(pairs, key=lambda pair: abs(pair.ratio.ratio - 1))
    on_cpu = evidence.backend == "cpu"
    return Judgement(
        verdict=OTHERS if on_cpu else "not measurable on this device",
        ours=_figures(pairs),
        value=worst.ratio.ratio,
        low=worst.ratio.low,
        high=worst.ratio.high,
        reason=OTHER_SOFTWARE
        + (f" {_tie_in_every_cell(pairs)}" if on_cpu else "")
        + f" {_target(pairs)}"
        + ("" if on_cpu else f" The claim is about a CPU; these rows are of {evidence.device}."),
        evidence=tuple(identity for pair in pairs for identity in pair.identities),
    )


def _no_overhead(evidence: Evidence) -> Judgement:
    """This library's layer never exchanges batch and sequence: its overhead is the repaired layer's."""
    pairs = _pairs(evidence, None)
    worst = max(pairs, key=lambda pair: pair.ratio.ratio)
    return Judgement(
        verdict=OTHERS,
        ours=_figures(pairs),
        value=worst.ratio.ratio,
        low=worst.ratio.low,
        high=worst.ratio.high,
        reason=f"{OTHER_SOFTWARE} It keeps batch and sequence where they are. {_tie_in_every_cell(pairs)} The figure "
        f"is the largest overhead. {_target(pairs)}",
        evidence=tuple(identity for pair in pairs for identity in pair.identities),
    )


def _bits(evidence: Evidence) -> Judgement:
    # The inlined code's check is its comparison with the layer; the layer's own is with a float64 reference. Where the
    # outputs differ, there is no time, and the row says by how much.
    checks = [(row, row.correctness) for row in evidence.find(Setting(suite="wrapper"), _inlined)]
    errors = [check.max_error for _, check in checks if check is not None and check.max_error is not None]
    if not errors:
        raise MissingRowsError("no outputs of layer and inlined code were compared (suite wrapper)")
    equal = max(errors) == 0 and all(check is None or check.passed for _, check in checks)
    return Judgement(
        verdict=OTHERS,
        ours=f"of this library's layer: largest difference {max(errors):.2g} over {len(errors)} cells",
        value=max(errors),
        reason=f"{OTHER_SOFTWARE} Like for like: {verdict(equal)}. Compared in the same run, before the clock.",
        evidence=tuple(row.identity for row, _ in checks),
    )


def _layout_pairs(evidence: Evidence) -> list[Pair]:
    """A projection alone, without attention, as published."""
    setting = Setting(suite="layouts", mode=None, batch_size=1)
    pairs = evidence.pairs(
        lambda cell: cell.role == "candidate" and cell.attention is None, lambda cell: cell.role == "baseline", setting
    )
    if not pairs:
        raise MissingRowsError(f"no layout timed against the native one ({setting})")
    return pairs


def _named(pair: Pair) -> str:
    return pair.cell.variant


def _layouts(evidence: Evidence) -> Judgement:
    pairs = _layout_pairs(evidence)
    views = [pair for pair in pairs if _named(pair) == "transposed view"]
    if not views:
        raise MissingRowsError("no transposed view timed against the native layout (suite layouts)")
    view = views[0]
    low, high = known(view.ratio.low, view.ratio.high)
    return only_on_metal(
        evidence,
        Judgement(
            verdict=OTHERS,
            ours="; ".join(f"{_named(pair)}: {words.times(pair)}" for pair in pairs),
            value=view.ratio.ratio,
            low=low,
            high=high,
            reason=f"{OTHER_LAYOUTS}{like_for_like(evidence, verdict(overlaps(low, high, 103 / 30)))} Times over the "
            "native layout's; the figure is the transposed view's.",
            evidence=tuple(identity for pair in pairs for identity in pair.identities),
        ),
    )


def _reshape(evidence: Evidence) -> Judgement:
    """Whether reshaping after the exchange is as fast as the native layout, and making contiguous is not."""
    pairs = _layout_pairs(evidence)
    reshaped = [pair for pair in pairs if "reshape" in _named(pair)]
    contiguous = [pair for pair in pairs if "contiguous" in _named(pair)]
    if not on_metal(evidence):
        held = False
    elif not reshaped or not contiguous:
        raise MissingRowsError("no layouts named reshape and contiguous (suite layouts)")
    else:
        fast = all(ties(*known(pair.ratio.low, pair.ratio.high)) for pair in reshaped)
        held = fast and all(known(pair.ratio.low, pair.ratio.high)[0] > 1 for pair in contiguous)
    return only_on_metal(
        evidence,
        Judgement(
            verdict=OTHERS,
            ours="; ".join(f"{_named(pair)}: {words.times(pair)}" for pair in reshaped + contiguous)
            or "no such layouts measured",
            reason=f"{OTHER_LAYOUTS}{like_for_like(evidence, verdict(held))}",
            evidence=tuple(identity for pair in reshaped + contiguous for identity in pair.identities),
        ),
    )


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "wrapper-b1": _overhead(1, (6.2, 11.2)),
    "wrapper-b4": _overhead(4, (1.3, 1.3)),
    "wrapper-batch": _shrinks,
    "wrapper-cpu": _on_cpu,
    "wrapper-bits": _bits,
    "wrapper-fixed": _no_overhead,
    "layouts": _layouts,
    "layouts-reshape": _reshape,
}
