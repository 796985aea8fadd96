"""What a comparison of a checkpoint's variants comes to: what each exchange broke, and how much of it came back."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.rows import Quality, Row
from eval.statistics.differences import paired_difference

_LOOK, _GENERATED = "surgery", ("generated_recall", "generated_needle")
# Bits per byte; a share of less says more about the text that was learnt than about what the exchange broke.
_LEAST_LOST = 0.01


def exchange_summary(
    rows: Sequence[Row], name: str, variants: Sequence[str], arms: Sequence[str]
) -> list[dict[str, Any]]:
    """A line for each variant: what was refused, or the damage; with arms one for each of them.

    Args:
        rows: Of the comparison.
        name: Of the checkpoint, as the records have it.
        variants: Names of series.
        arms: Ways to mend.
    """
    lines = []
    for variant in variants:
        own = [row for row in rows if row.quality is not None and row.quality.variant == variant]
        look = next(
            (row for row in own if row.quality and (row.quality.task, row.quality.model) == (_LOOK, name)), None
        )
        if look is None or look.quality is None or look.quality.surgery is None:
            lines.append({"variant": variant, "refused": None if look is None else look.reason})
            continue
        damage = json.loads(look.quality.surgery)["damage"]
        about = {"variant": variant, "damage": damage}
        qualities = [row.quality for row in own if row.quality is not None]
        lines += [{**about, **_arm(qualities, name, arm, damage)} for arm in arms] or [about]
    return lines


def recovered_share(damage: Mapping[str, Any], bits_per_byte: float) -> float | None:
    """Of the bits per byte that an exchange lost, how many came back; None where next to none were lost."""
    before, after = damage["bits_per_byte_before"], damage["bits_per_byte_after"]
    if before is None or after is None or after - before < _LEAST_LOST:
        return None
    return float((after - bits_per_byte) / (after - before))


def _arm(found: Sequence[Quality], name: str, arm: str, damage: Mapping[str, Any]) -> dict[str, Any]:
    own = [each for each in found if each.model == f"{name}, {arm}" and each.is_overall and each.value is not None]

    def values(task: str, metric: str) -> list[float]:
        return [each.value for each in own if (each.task, each.metric) == (task, metric) and each.value is not None]

    bits = values("language", "bits_per_byte")
    shares = [part for each in bits if (part := recovered_share(damage, each)) is not None]
    share = paired_difference(shares, [0.0] * len(shares)) if shares else None
    trained = [each for each in own if each.is_of_training]
    speeds = [each.tokens_per_second for each in trained if each.tokens_per_second is not None]
    without = [
        each.value for each in own if each.task == "ablation" and each.metric == "bits_per_byte without attention"
    ]
    return {
        "arm": arm,
        "seeds": len(trained),
        "tokens": max((each.tokens or 0 for each in trained), default=0) or None,
        "mean_bits_per_byte": statistics.fmean(bits) if bits else None,
        "recovered_share": None if share is None else share.difference,
        "recovered_share_low": None if share is None else share.low,
        "recovered_share_high": None if share is None else share.high,
        "mean_bits_per_byte_without_attention": _mean(without),
        **{task: _mean(values(task, "accuracy")) for task in _GENERATED},
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "max_peak_memory_bytes": max((each.peak_bytes or 0 for each in trained), default=0) or None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def summary_lines(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """The summary for people."""
    rows = [
        (
            "variant",
            "arm",
            "KL nats",
            "bits/byte: before",
            "after",
            "mended",
            "recovered",
            "without",
            "recall",
            "needle",
        )
    ]
    for line in summary:
        damage = line.get("damage")
        if damage is None:
            rows.append((line["variant"], f"refused: {line['refused']}", *[""] * 8))
            continue
        share = line.get("recovered_share")
        rows.append(
            (
                line["variant"],
                line.get("arm", "–"),
                f"{damage['kl_nats_per_token']:.4f}",
                _number(damage["bits_per_byte_before"]),
                _number(damage["bits_per_byte_after"]),
                _number(line.get("mean_bits_per_byte")),
                "–" if share is None else f"{share:.1%}",
                _number(line.get("mean_bits_per_byte_without_attention")),
                _number(line.get("generated_recall")),
                _number(line.get("generated_needle")),
            )
        )
    widths = [max(len(row[column]) for row in rows if column != 1 or row[2]) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
