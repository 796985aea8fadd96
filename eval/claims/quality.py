"""Claims about what an approximation costs in quality."""

from collections.abc import Callable, Mapping

import numpy as np

from eval.claims import words
from eval.claims.claim import Judgement, MissingRowsError
from eval.claims.evidence import Evidence
from eval.claims.verdict import known, verdict
from eval.rows import Quality, Row
from eval.statistics.contrasts import Contrast, contrast


def _linear(evidence: Evidence) -> Judgement:
    """Bits per byte of linear over softmax attention at equal tokens; recall accuracy beside it."""
    losses = _differences(evidence, "bits_per_byte", "linear", "mha")
    if not losses:
        raise MissingRowsError("no bits per byte of linear and mha at equal tokens, of two seeds at least")
    recall = _differences(evidence, "accuracy", "linear", "mha")
    worst = min(losses.values(), key=lambda found: found[0].value)
    low, high = known(worst[0].low, worst[0].high)
    texts = [_text(name, found[0]) for name, found in (*losses.items(), *recall.items())]
    return Judgement(
        verdict=verdict(all(known(found.low, found.high)[0] > 0 for found, _ in losses.values())),
        ours="linear minus mha: " + "; ".join(texts),
        value=worst[0].value,
        low=low,
        high=high,
        reason="Judged by bits per byte at equal tokens (more is worse), over seeds; every interval has to be above 0.",
        evidence=tuple(row.identity for _, rows in (*losses.values(), *recall.values()) for row in rows),
    )


def _differences(
    evidence: Evidence, metric: str, variant: str, baseline: str
) -> dict[str, tuple[Contrast, tuple[Row, ...]]]:
    """Difference of medians over seeds, for every task and setting that both were trained on."""
    found: dict[str, dict[str, dict[int, Row]]] = {}
    # What an evaluation says counts before a training's own last value of the same seed.
    for row in sorted(evidence.rows, key=lambda row: row.quality is None or not row.quality.is_of_training):
        quality = row.quality
        if quality is None or quality.value is None or quality.regime != "equal_tokens":
            continue
        if quality.quantity != metric:
            continue
        # Of the whole task only: where along an axis the difference lies is another table.
        if quality.variant in (variant, baseline) and quality.is_overall:
            found.setdefault(_setting(quality, metric), {}).setdefault(quality.variant, {})[quality.seed] = row
    return {
        name: (
            contrast([_values(rows[variant]), _values(rows[baseline])], [1.0, -1.0]),
            (*rows[variant].values(), *rows[baseline].values()),
        )
        for name, rows in found.items()
        if min(len(rows.get(each, ())) for each in (variant, baseline)) > 1
    }


def _values(rows: Mapping[int, Row]) -> np.ndarray:
    return np.array([row.quality.value for row in rows.values() if row.quality is not None], dtype=np.float64)


def _setting(quality: Quality, metric: str) -> str:
    return f"{metric} of {quality.task} ({quality.model}, {quality.data})"


def _text(name: str, difference: Contrast) -> str:
    return f"{name}: {words.with_interval(difference.value, difference.low, difference.high, digits=3)}"


JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {"linear-approximates": _linear}
