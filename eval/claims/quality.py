"""Claims about what an approximation costs in quality."""

import collections
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence

from eval.claims import words
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence
from eval.claims.verdict import known, verdict
from eval.rows import Quality, Row
from eval.statistics.differences import DifferenceEstimate, paired_difference


def _linear(evidence: Evidence) -> Judgement:
    """Bits per byte of linear over softmax attention at equal tokens; recall accuracy beside it."""
    losses = _differences(evidence, "bits_per_byte", "linear", "mha")
    if not losses:
        raise MissingRowsError("no bits per byte of linear and mha at equal tokens, of two seeds at least")
    recall = _differences(evidence, "accuracy", "linear", "mha")
    worst = max(losses.values(), key=lambda found: found[0].difference)
    low, high = known(worst[0].low, worst[0].high)
    texts = [_text(name, found[0]) for name, found in (*losses.items(), *recall.items())]
    costs = [known(found.low, found.high)[0] > 0 for found, _ in losses.values()]
    costs += [known(found.low, found.high)[1] < 0 for found, _ in recall.values()]
    return Judgement(
        verdict=verdict(any(costs)),
        ours="linear minus mha: " + "; ".join(texts),
        value=worst[0].difference,
        low=low,
        high=high,
        reason="At equal tokens, differences paired by seed: more bits per byte or less accuracy is worse. It may cost "
        "quality: one of the intervals has to lie wholly on the worse side of 0.",
        evidence=tuple(row.identity for _, rows in (*losses.values(), *recall.values()) for row in rows),
    )


def _differences(
    evidence: Evidence, metric: str, variant: str, baseline: str
) -> dict[str, tuple[DifferenceEstimate, tuple[Row, ...]]]:
    """Mean difference of the seeds that both had, for every task and setting that both were trained on."""
    found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
    # What an evaluation says counts before a training's own last value of the same seed.
    for row in sorted(evidence.rows, key=lambda row: row.quality is None or not row.quality.is_of_training):
        quality = row.quality
        if quality is None or quality.value is None or quality.regime != "equal_tokens":
            continue
        if quality.quantity != metric:
            continue
        # Of the whole task only: where along an axis the difference lies is another table.
        if quality.variant in (variant, baseline) and quality.is_overall:
            setting = (_setting(quality, metric), quality.trained_on, quality.measured_on, quality.budget)
            found.setdefault(setting, {}).setdefault(quality.variant, {})[quality.seed] = row
    differences = {}
    named = collections.Counter(name for name, *_ in found)
    for (name, trained_on, *rest), rows in found.items():
        ours, theirs = rows.get(variant, {}), rows.get(baseline, {})
        seeds = sorted(set(ours) & set(theirs))
        if len(seeds) > 1:
            compared = [[each[seed] for seed in seeds] for each in (ours, theirs)]
            # Settings of one name are told apart by what names all that differs.
            which = hashlib.sha256(repr((trained_on, *rest)).encode()).hexdigest()[:8]
            key = str(name) if named[name] == 1 else f"{name}, {which}"
            differences[key] = (paired_difference(*map(_values, compared)), tuple(itertools.chain(*compared)))
    return differences


def _values(rows: Sequence[Row]) -> list[float]:
    return [row.quality.value for row in rows if row.quality is not None and row.quality.value is not None]


def _setting(quality: Quality, metric: str) -> str:
    steps = "" if quality.steps is None else f", {quality.steps} steps"
    return f"{metric} of {quality.task} ({quality.model}, {quality.data}{steps})"


def _text(name: str, found: DifferenceEstimate) -> str:
    return f"{name}: {words.with_interval(found.difference, found.low, found.high, digits=3)}"


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {"linear-approximates": _linear}
