"""The records of a comparison of a checkpoint's variants, and what they come to.

Records are of evaluations under the comparison's names, of fine-tunings, and of refusals; the summary says what each
exchange broke, and how much of it came back.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.quality import Score
from eval.quality.run_rows import fields_of_run, quality_row, relabelled, validation_row
from eval.rows import Row
from eval.rows.schema import Budget
from eval.suites.series import series_named
from recipes.comparison_run import ComparisonRun
from zoo.checkpoints import section
from zoo.training import RunFolder

_COLUMNS = (
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
# Of what an exchange did before anything was trained.
_UNTRAINED = {"budget": "checkpoint", "seed": 0}


def renamed(row: Row, model: str, *, variant: str | None, budget: Budget = "checkpoint") -> Row:
    """A record of an evaluation as part of this comparison: whose it is, and what was held equal."""
    own = {} if variant is None else {"variant": variant, "attention": series_named(variant).attention}
    return relabelled(row, model=model, budget=budget, **own)


def row_of_run(cell: ComparisonRun, model: str) -> Row:
    """What a fine-tuning itself found last, its curve, and what it took."""
    whose = {**fields_of_run(cell.folder), **_names(cell, model), "budget": cell.budget, "seed": cell.seed}
    return validation_row(cell.folder, whose, cell.result()["model"])


def surgery_of_run(cell: ComparisonRun, model: str) -> Row:
    """What exchanging the attention did, as the fine-tuning that followed reported it; the same for every seed."""
    surgery = cell.result()["surgery"]
    damage = surgery.get("damage") or {}
    score = Score(metric="kl_nats_per_token", value=damage.get("kl_nats_per_token"), surgery=json.dumps(surgery))
    whose = {**_names(cell, model), **_UNTRAINED, "measured_on": fields_of_run(cell.folder)["measured_on"]}
    return quality_row(whose, "surgery", score, run_dir=cell.folder)


def _names(cell: ComparisonRun, model: str) -> dict[str, str]:
    data = str(section(RunFolder(cell.folder).saved_config(), "data").get("corpus", "examples"))
    return {
        "variant": cell.variant,
        "attention": series_named(cell.variant).attention,
        "model": model,
        "data": data,
    }


def refusal(variant: str, reason: str, *, model: str, data: str, measured_on: str) -> Row:
    """That a variant cannot take the place of the checkpoint's attention, and why."""
    attention = series_named(variant).attention
    whose = {"variant": variant, "attention": attention, "model": model, "data": data, "measured_on": measured_on}
    return quality_row({**whose, **_UNTRAINED}, "surgery", Score(metric="kl_nats_per_token", skipped=reason))


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
    rows = [_COLUMNS]
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
