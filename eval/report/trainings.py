"""What trainings reached, seed by seed: of each variant from nothing, and of trained models with another attention.

A record of the task `surgery` tells what exchanging a checkpoint's attention did and belongs to the checkpoint's name;
what was mended belongs to that name and the way, as in `name, heal`.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eval.query import grouped
from eval.report.quality import TEXT_TASKS, Experiment, experiment_of, measured_quality, of_one_training, over_seeds
from eval.report.text import NOTHING, Table, as_text, ends, flat, num_bytes, number
from eval.rows import Quality, Row
from eval.rows.schema import Budget
from eval.statistics import paired_difference

_EQUAL: dict[Budget, str] = {"equal_tokens": "tokens", "equal_seconds": "seconds", "checkpoint": NOTHING}
# Digits of a digest that tell the few of one table apart.
_SHOWN = 8
SURGERY = "surgery"
# Bits per byte; a share of less says more about the text that was learnt than about what the exchange broke.
_LEAST_LOST = 0.01


class Comparison(NamedTuple):
    """What may be compared: one experiment and quantity, under one budget, on the same terms."""

    experiment: Experiment
    quantity: str
    budget: Budget
    terms: tuple[int | None, str | None]


def trainings(found: Iterable[Quality]) -> dict[Comparison, dict[str, dict[int, Quality]]]:
    """Comparison -> variant -> seed -> what training itself reported last, over all settings of its task.

    A variant that was trained in several ways within a comparison stands there once for each, with its steps and the
    beginning of its settings' digest.
    """
    own = [quality for quality in found if quality.is_of_training and quality.is_overall]
    compared = grouped(own, lambda each: Comparison(experiment_of(each), each.quantity, each.budget, each.terms))
    return {comparison: _by_variant(own) for comparison, own in compared.items()}


def _by_variant(found: Sequence[Quality]) -> dict[str, dict[int, Quality]]:
    variants = {}
    for variant, own in grouped(found, lambda quality: quality.variant).items():
        ways = grouped(own, lambda quality: quality.training).values()
        for trained in ways:
            steps, digest = trained[0].steps, trained[0].settings_digest
            way = f" ({steps} steps{f', {digest[:_SHOWN]}' if digest else ''})" if len(ways) > 1 else ""
            variants[f"{variant}{way}"] = {quality.seed: quality for quality in trained}
    return variants


def named_comparisons(comparisons: Iterable[Comparison]) -> dict[Comparison, str]:
    """The experiment of each, with what tells those of one name apart: the data's content, and settings that differ."""
    names = {}
    alike = grouped(comparisons, lambda each: (str(each.experiment), each.quantity, each.budget))
    for (experiment, *_), group in alike.items():
        facts = {comparison: _facts(comparison) for comparison in group}
        keys = dict.fromkeys(key for own in facts.values() for key in own)
        differing = [key for key in keys if len({own.get(key) for own in facts.values()}) > 1]
        for comparison, own in facts.items():
            names[comparison] = ", ".join([experiment, *(f"{key} {own.get(key, 'unknown')}" for key in differing)])
    return names


def _facts(comparison: Comparison) -> dict[str, str]:
    (_, _, trained_on, measured_on), (_, settings) = comparison.experiment, comparison.terms
    contents = {"trained on": trained_on, "measured on": measured_on}
    # As JSON writes them: names and values from a file may hold anything.
    told = {json.dumps(key)[1:-1]: json.dumps(value) for key, value in flat(json.loads(settings or "{}")).items()}
    # Trainings of other lengths are told apart by their steps, which have a column.
    told.pop("training.steps", None)
    return {key: value[:_SHOWN] for key, value in contents.items() if value is not None} | told


def trainings_table(rows: Sequence[Row]) -> Table:
    """A line for each variant of each comparison of one device, in the order in which they were trained."""
    lines = []
    compared = trainings(measured_quality(rows))
    names = named_comparisons(compared)
    for comparison, variants in compared.items():
        first = None
        for name, by_seed in variants.items():
            seeds = by_seed.values()
            found = over_seeds(seeds)
            assert found is not None, "only figures with a value are compared"
            line = {
                "model and data": names[comparison],
                "at equal": _EQUAL[comparison.budget],
                "variant": name,
                "steps": _median(each.steps for each in seeds),
                "figure": comparison.quantity.replace("_", " ") + _batches(seeds),
                "held-out value": str(found),
                "difference to the first": found.against(first) or NOTHING,
                "training tokens/s": _median(each.tokens_per_second for each in seeds),
                "peak": num_bytes(_peak_bytes(seeds)),
            }
            lines.append(line)
            first = first or found
    return Table(
        lines,
        note="Values are means over n seeds ± standard deviation, as training itself found them last: evaluations may "
        "have looked at more. Differences are paired by seed, with Student's 95 % interval. Tokens per second are "
        "those of the trainings, medians over seeds, with whatever ran beside them: speeds are compared by "
        "interleaved rounds only.",
    )


def _batches(found: Iterable[Quality]) -> str:
    """How much of the held-out data the trainings looked at, where they say that it was not all."""
    limits = [json.loads(each.settings or "{}").get("training", {}).get("eval_batches") for each in found]
    known = [limit for limit in limits if type(limit) is int]
    return f" of at most {max(known)} batches" if known else ""


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.0f}" if known else NOTHING


def _peak_bytes(found: Iterable[Quality]) -> int | None:
    return max((each.peak_bytes or 0 for each in found), default=0) or None


def exchanges(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each variant of each checkpoint: the damage, for each way in which it was mended, or the refusal.

    Args:
        rows: Of one device.

    Returns:
        `checkpoint`, `variant`, and `refused`, or `surgery`, the whole report, with `damage` of it; of a mended one
        `arm` and its figures as well.
    """
    looks = [(row.quality, row.reason) for row in rows if row.quality is not None and row.quality.task == SURGERY]
    names = {look.model for look, _ in looks}
    mended = grouped(
        (each for each in measured_quality(rows) if each.is_overall and each.model not in names),
        lambda each: (each.model.rpartition(", ")[0], each.variant),
    )
    lines: list[dict[str, Any]] = []
    for look, reason in looks:
        about: dict[str, Any] = {"checkpoint": look.model, "variant": look.variant}
        if look.surgery is None:
            lines.append({**about, "refused": reason})
            continue
        surgery = json.loads(look.surgery)
        about = {**about, "surgery": surgery, "damage": surgery["damage"]}
        arms = grouped(mended.get((look.model, look.variant), []), lambda each: each.model.rpartition(", ")[2])
        lines += [{**about, "arm": arm, **_figures(own, surgery["damage"])} for arm, own in arms.items()] or [about]
    return lines


def recovered_share(damage: Mapping[str, Any], bits_per_byte: float) -> float | None:
    """Of the bits per byte that an exchange lost, how many came back; None where next to none were lost."""
    before, after = damage["bits_per_byte_before"], damage["bits_per_byte_after"]
    if before is None or after is None or after - before < _LEAST_LOST:
        return None
    return float((after - bits_per_byte) / (after - before))


def _figures(found: Sequence[Quality], damage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of models that differ in their seed only."""
    own = of_one_training(found)

    def values(metric: str, *tasks: str) -> list[float]:
        asked = [each for each in own if each.metric == metric]
        by_task = ([each.value for each in asked if each.task == task and each.value is not None] for task in tasks)
        return next((found for found in by_task if found), [])

    def mean(values: Sequence[float]) -> float | None:
        return statistics.fmean(values) if values else None

    bits = values("bits_per_byte", *TEXT_TASKS)
    # A training looks at less, and its figure has no damage to be held against.
    own_bits = bits or values("val_bits_per_byte", *TEXT_TASKS)
    shares = [] if damage is None else [recovered_share(damage, each) for each in bits]
    known = [each for each in shares if each is not None]
    share = paired_difference(known, [0.0] * len(known)) if known else None
    trained = [each for each in own if each.is_of_training]
    speeds = [each.tokens_per_second for each in trained if each.tokens_per_second is not None]
    return {
        "seeds": len({each.seed for each in own}),
        "tokens": max((each.tokens or 0 for each in trained), default=0) or None,
        "mean_bits_per_byte": mean(own_bits),
        "stdev_bits_per_byte": statistics.stdev(own_bits) if len(own_bits) > 1 else None,
        "recovered_share": share and share.value,
        "recovered_share_low": share and share.low,
        "recovered_share_high": share and share.high,
        "mean_bits_per_byte_without_attention": mean(values("bits_per_byte without attention", "ablation")),
        "generated_recall": mean(values("accuracy", "generated_recall")),
        "generated_needle": mean(values("accuracy", "generated_needle")),
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "max_peak_memory_bytes": _peak_bytes(trained),
    }


def share_words(line: Mapping[str, Any]) -> str:
    """The share that came back by a line of `exchanges`, with its interval."""
    low, high = line.get("recovered_share_low"), line.get("recovered_share_high")
    return f"{number(line.get('recovered_share'))}{ends(low, high)}"


def exchanges_table(rows: Sequence[Row]) -> Table:
    """A line for the variants of one device that an exchange broke alike, with what mending them came to."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    broken = [line for line in exchanges(rows) if "damage" in line]
    for (checkpoint, variant), lines in grouped(broken, lambda each: (each["checkpoint"], each["variant"])).items():
        damage, arms = lines[0]["damage"], {line.get("arm"): line for line in lines}
        healed, tuned, scratch = (arms.get(arm, {}) for arm in ("heal", "finetune", "scratch"))
        cells = {
            "KL nats/token": number(damage["kl_nats_per_token"]),
            "bits per byte before": number(damage["bits_per_byte_before"], 4),
            "after": number(damage["bits_per_byte_after"], 4),
            "healed": number(healed.get("mean_bits_per_byte"), 4),
            "share that came back": share_words(healed),
            "fine-tuned": number(tuned.get("mean_bits_per_byte"), 4),
            "from nothing": number(scratch.get("mean_bits_per_byte"), 4),
        }
        alike.setdefault((checkpoint, *cells.items()), []).append(variant)
    return Table(
        [
            {"model": checkpoint, "variant": ", ".join(names), **dict(cells)}
            for (checkpoint, *cells), names in alike.items()
        ],
        note="The attention of a trained model is exchanged, then mended with one budget of tokens: by learning from "
        "the original, by plain fine-tuning, or not at all but by a model of that variant from nothing. Means over "
        "seeds, with Student's 95 % interval of the share.",
    )


def mended_table(rows: Sequence[Row]) -> Table:
    """A line for each variant and way to mend it, after those of the checkpoints themselves, with every figure."""
    exchanged = exchanges(rows)
    lines = [line for line in exchanged if "arm" in line]
    if lines:
        whole = [each for each in measured_quality(rows) if each.is_overall and each.budget == "checkpoint"]
        own = grouped((each for each in whole if each.task != SURGERY), lambda each: each.model)
        lines[:0] = [
            {"checkpoint": name, "variant": own[name][0].variant, "arm": "original", **_figures(own[name], None)}
            for name in dict.fromkeys(line["checkpoint"] for line in exchanged)
            if name in own
        ]
    return Table(
        [
            {key.replace("_", " "): as_text(value) for key, value in line.items() if key not in ("surgery", "damage")}
            for line in lines
        ],
        note="Heal learns from the original, finetune from the text alone, scratch is a model of that variant that "
        "began with fresh weights. Shares are missing where less than 0.01 bits per byte were lost. Without attention: "
        "the same model with the output of every attention layer at zero; one that loses nothing has learnt to go "
        "round it. Recall and needle are written greedily token by token; by chance, recall is right in 29 % of the "
        "cases if one of the numbers in the text is taken, the needle in 0.1 %.",
    )
