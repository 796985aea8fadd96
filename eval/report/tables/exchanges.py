"""Trained models with another attention as tables: what the exchange did, and what mending brought back."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.exchanges import exchanges, originals
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, interval, num_bytes, number
from eval.rows import Row


def surgeries_table(rows: Sequence[Row]) -> Table:
    """A line for each variant that was put into a trained model, or refused.

    Args:
        rows: Of one device.
    """
    lines = {(line["checkpoint"], line["variant"]): line for line in exchanges(rows)}
    return Table(
        columns=(
            *("checkpoint", "variant", "layers", "KL nats/token", "equal first guesses", "largest logit difference"),
            *("bits per byte before", "after", "parameters", "cache bytes/token before", "after", "decoding tokens/s"),
            "new tensors",
        ),
        rows=tuple(_surgery(line) for line in lines.values()),
        note="Before anything is trained, against the checkpoint as it was, on the same held-out text. Cache bytes are "
        "those of the model's longest text, in float32, over its length; decoding is one text of 64 tokens, a single "
        "sample. A variant that the model cannot take stands here with the reason.",
    )


def mended_table(rows: Sequence[Row]) -> Table:
    """A line for each variant and way to mend it, after those of the checkpoints themselves.

    Args:
        rows: Of one device.
    """
    mended = [line for line in exchanges(rows) if "arm" in line]
    return Table(
        columns=(
            *("checkpoint", "variant", "trained", "tokens", "bits per byte", "share of the loss that came back"),
            *("bits per byte without attention", "recall, written", "needle, written", "tokens/s", "peak"),
        ),
        rows=tuple(_mended(line) for line in (*originals(rows), *mended)) if mended else (),
        note="One budget of tokens: heal learns from the original, finetune from the text alone, scratch is a model of "
        "that variant that began with fresh weights. Bits per byte are means over seeds ± standard deviation; shares "
        "have Student's 95 % interval over seeds, and are missing where less than 0.01 bits per byte were lost. "
        "Without attention: the same model with the output of every attention layer at zero; one that loses nothing "
        "has learnt to go round it. Recall and needle are written greedily token by token; by chance, recall is right "
        "in 29 % of the cases if one of the numbers in the text is taken, the needle in 0.1 %.",
    )


def _surgery(line: Mapping[str, Any]) -> tuple[str, ...]:
    if "refused" in line:
        return line["checkpoint"], line["variant"], f"refused: {line['refused']}", *[NOTHING] * 10
    surgery, damage = line["surgery"], line["damage"]
    cache, greedy = surgery.get("cache") or {}, surgery.get("greedy") or {}
    change = surgery["parameters_after"] - surgery["parameters_before"]
    return (
        line["checkpoint"],
        line["variant"],
        f"{len(surgery['layers'])} of {surgery['num_layers']}",
        number(damage["kl_nats_per_token"]),
        f"{damage['top1_agreement']:.1%}",
        number(damage["largest_logit_difference"]),
        number(damage["bits_per_byte_before"], 4),
        number(damage["bits_per_byte_after"], 4),
        f"{change:+,}",
        number(cache.get("before")),
        number(cache.get("after")),
        number(greedy.get("decode_tokens_per_second")),
        ", ".join(surgery["new"]) or NOTHING,
    )


def _mended(line: Mapping[str, Any]) -> tuple[str, ...]:
    deviation = line["stdev_bits_per_byte"]
    ends = (line["recovered_share"], line["recovered_share_low"], line["recovered_share_high"])
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    tokens = line["tokens"]
    return (
        line["checkpoint"],
        line["variant"],
        line.get("arm", "original"),
        NOTHING if tokens is None else f"{tokens:,}",
        NOTHING
        if line["mean_bits_per_byte"] is None
        else f"{line['mean_bits_per_byte']:.4f}{spread} (n={line['seeds']})",
        interval(*ends),
        number(line["mean_bits_per_byte_without_attention"], 4),
        number(line["generated_recall"]),
        number(line["generated_needle"]),
        number(line["median_tokens_per_second"]),
        num_bytes(line["max_peak_memory_bytes"]),
    )
