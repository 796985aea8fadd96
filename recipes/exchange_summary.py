"""What a comparison of a checkpoint's variants comes to: what each exchange broke, and how much of it came back."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.rows import Row


def exchange_summary(rows: Sequence[Row], name: str, variants: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each variant: why it was refused, or the damage; with arms one for each of them.

    Args:
        rows: Of the comparison.
        name: Of the checkpoint, as the records have it.
        variants: Names of series, whose order is kept.
    """
    # It imports SciPy.
    from eval.report.trainings import exchanges

    lines = [{key: value for key, value in line.items() if key != "surgery"} for line in exchanges(rows)]
    return [line for variant in variants for line in lines if (line["checkpoint"], line["variant"]) == (name, variant)]


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
