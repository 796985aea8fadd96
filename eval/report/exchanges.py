"""What exchanging the attention of trained models broke, and how much of it came back, variant by variant.

A record of the task `surgery` belongs to a checkpoint's name; what was mended to that name and the way, `name, heal`.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.qualities import of_one_training, qualities
from eval.rows import Quality, Row
from eval.statistics.intervals import paired_difference

SURGERY = "surgery"
# Bits per byte; a share of less says more about the text that was learnt than about what the exchange broke.
_LEAST_LOST = 0.01


def exchanges(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each variant of each checkpoint: the damage, for each way in which it was mended, or the refusal.

    Args:
        rows: Of one device.

    Returns:
        `checkpoint`, `variant`, and `refused`, or `surgery`, the whole report, with `damage` of it; of a mended one
        `arm` and its figures as well.
    """
    looks = [row for row in rows if row.quality is not None and row.quality.task == SURGERY]
    names = {row.quality.model for row in looks if row.quality is not None}
    found = [quality for quality in qualities(rows) if quality.is_overall]
    lines: list[dict[str, Any]] = []
    for row in looks:
        look = row.quality
        assert look is not None, "it was asked for"
        about: dict[str, Any] = {"checkpoint": look.model, "variant": look.variant}
        if look.surgery is None:
            lines.append({**about, "refused": row.reason})
            continue
        surgery = json.loads(look.surgery)
        about = {**about, "surgery": surgery, "damage": surgery["damage"]}
        arms: dict[str, list[Quality]] = {}
        for each in found:
            name, _, arm = each.model.rpartition(", ")
            if (name, each.variant) == (look.model, look.variant) and each.model not in names:
                arms.setdefault(arm, []).append(each)
        lines += [{**about, "arm": arm, **_figures(own, surgery["damage"])} for arm, own in arms.items()] or [about]
    return lines


def originals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each checkpoint whose attention was exchanged: its own figures."""
    names = dict.fromkeys(row.quality.model for row in rows if row.quality is not None and row.quality.task == SURGERY)
    found = [each for each in qualities(rows) if each.is_overall and each.task != SURGERY]
    own = {name: [each for each in found if (each.model, each.regime) == (name, "checkpoint")] for name in names}
    return [
        {"checkpoint": name, "variant": each[0].variant, **_figures(each, None)} for name, each in own.items() if each
    ]


def recovered_share(damage: Mapping[str, Any], bits_per_byte: float) -> float | None:
    """Of the bits per byte that an exchange lost, how many came back; None where next to none were lost."""
    before, after = damage["bits_per_byte_before"], damage["bits_per_byte_after"]
    if before is None or after is None or after - before < _LEAST_LOST:
        return None
    return float((after - bits_per_byte) / (after - before))


def _figures(found: Sequence[Quality], damage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of models that differ in their seed only."""
    own = of_one_training(found)

    def values(task: str, metric: str) -> list[float]:
        return [each.value for each in own if (each.task, each.metric) == (task, metric) and each.value is not None]

    bits = values("language", "bits_per_byte") or values("masked", "bits_per_byte")
    # A training looks at less, and its figure has no damage to be held against.
    own_bits = bits or values("language", "val_bits_per_byte") or values("masked", "val_bits_per_byte")
    shares = [] if damage is None else [recovered_share(damage, each) for each in bits]
    known = [each for each in shares if each is not None]
    share = paired_difference(known, [0.0] * len(known)) if known else None
    trained = [each for each in own if each.is_of_training]
    speeds = [each.tokens_per_second for each in trained if each.tokens_per_second is not None]
    return {
        "seeds": len({each.seed for each in own}),
        "tokens": max((each.tokens or 0 for each in trained), default=0) or None,
        "mean_bits_per_byte": _mean(own_bits),
        "stdev_bits_per_byte": statistics.stdev(own_bits) if len(own_bits) > 1 else None,
        "recovered_share": None if share is None else share.value,
        "recovered_share_low": None if share is None else share.low,
        "recovered_share_high": None if share is None else share.high,
        "mean_bits_per_byte_without_attention": _mean(values("ablation", "bits_per_byte without attention")),
        "generated_recall": _mean(values("generated_recall", "accuracy")),
        "generated_needle": _mean(values("generated_needle", "accuracy")),
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "max_peak_memory_bytes": max((each.peak_bytes or 0 for each in trained), default=0) or None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
