"""What trainings reached, seed by seed: of each variant from nothing, and of trained models with another attention.

A record of the task `surgery` tells what exchanging a checkpoint's attention did and belongs to the checkpoint's name;
what was mended belongs to that name and the way, as in `name, heal`.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.report.quality import (
    TEXT_TASKS,
    Experiment,
    by_training,
    experiment_of,
    measured_quality,
    of_one_training,
    one_per_seed,
    over_seeds,
)
from eval.report.text import NOTHING, Table, as_text, interval, num_bytes, number
from eval.rows import Quality, Row
from eval.rows.schema import Budget
from eval.statistics import paired_difference

_EQUAL: dict[Budget, str] = {"equal_tokens": "tokens", "equal_seconds": "seconds", "checkpoint": NOTHING}
# Digits of a digest that tell the few of one table apart.
_SHOWN = 8
SURGERY = "surgery"
# Bits per byte; a share of less says more about the text that was learnt than about what the exchange broke.
_LEAST_LOST = 0.01
# What may be compared: one experiment and quantity, under one budget, on the same terms.
Comparison = tuple[Experiment, str, Budget, tuple[int | None, str | None]]


def trainings(found: Iterable[Quality]) -> dict[Comparison, dict[str, dict[int, Quality]]]:
    """Comparison -> variant -> seed -> what training itself reported last, over all settings of its task.

    A variant that was trained in several ways within a comparison stands there once for each, with its steps and the
    beginning of its settings' digest.
    """
    compared: dict[Comparison, dict[str, list[Quality]]] = {}
    for quality in found:
        if quality.is_of_training and quality.is_overall:
            comparison = (experiment_of(quality), quality.quantity, quality.budget, quality.terms)
            compared.setdefault(comparison, {}).setdefault(quality.variant, []).append(quality)
    return {
        comparison: {name: one_per_seed(own) for name, each in variants.items() for name, own in _named(name, each)}
        for comparison, variants in compared.items()
    }


def _named(variant: str, found: Sequence[Quality]) -> list[tuple[str, list[Quality]]]:
    groups = list(by_training(found).values())
    if len(groups) == 1:
        return [(variant, groups[0])]
    return [(f"{variant} ({_way(group[0])})", group) for group in groups]


def _way(quality: Quality) -> str:
    return f"{quality.steps} steps" + (f", {quality.settings_digest[:_SHOWN]}" if quality.settings_digest else "")


def named_comparisons(comparisons: Iterable[Comparison]) -> dict[Comparison, str]:
    """The experiment of each, with what tells those of one name apart: the data's content, and settings that differ."""
    groups: dict[tuple[str, str, Budget], list[Comparison]] = {}
    for comparison in comparisons:
        experiment, quantity, budget, _ = comparison
        groups.setdefault((str(experiment), quantity, budget), []).append(comparison)
    return {
        comparison: ", ".join([name, *_differences(comparison, group)])
        for (name, *_), group in groups.items()
        for comparison in group
    }


def _differences(comparison: Comparison, group: Sequence[Comparison]) -> list[str]:
    own, all_facts = _facts(comparison), [_facts(each) for each in group]
    differing = [key for key in own if len({facts.get(key) for facts in all_facts}) > 1]
    differing += sorted({key for facts in all_facts for key in facts} - own.keys())
    return [f"{key} {own.get(key, 'unknown')}" for key in differing]


def _facts(comparison: Comparison) -> dict[str, str]:
    experiment, _, _, (_, settings) = comparison
    contents = {"trained on": experiment.trained_on, "measured on": experiment.measured_on}
    facts = {key: value[:_SHOWN] for key, value in contents.items() if value is not None}
    # Trainings of other lengths are told apart by their steps, which have a column.
    flat = {} if settings is None else _flat(json.loads(settings))
    return facts | {key: value for key, value in flat.items() if key != "training.steps"}


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        # As JSON writes it: a name from a file may hold anything.
        name = prefix + json.dumps(key)[1:-1]
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: json.dumps(value)}
    return flat


def trainings_table(rows: Sequence[Row]) -> Table:
    """A line for each variant of each comparison of one device, in the order in which they were trained."""
    lines = []
    compared = trainings(measured_quality(rows))
    names = named_comparisons(compared)
    for comparison, variants in compared.items():
        _, metric, budget, _ = comparison
        reached = {name: over_seeds(seeds.values()) for name, seeds in variants.items()}
        first = next(iter(reached.values()))
        for name, seeds in variants.items():
            found = reached[name]
            assert found is not None, "only figures with a value are compared"
            lines.append(
                (
                    names[comparison],
                    _EQUAL[budget],
                    name,
                    _median([each.steps for each in seeds.values()]),
                    metric.replace("_", " ") + _batches(seeds.values()),
                    str(found),
                    NOTHING if found is first or found.minus(first) is None else found.against(first),
                    _median([each.tokens_per_second for each in seeds.values()]),
                    num_bytes(max((each.peak_bytes or 0 for each in seeds.values()), default=0) or None),
                )
            )
    return Table(
        columns=(
            *("model and data", "at equal", "variant", "steps", "figure", "held-out value"),
            *("difference to the first", "training tokens/s", "peak"),
        ),
        rows=tuple(lines),
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


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.0f}" if known else NOTHING


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
    found = [quality for quality in measured_quality(rows) if quality.is_overall]
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
    found = [each for each in measured_quality(rows) if each.is_overall and each.task != SURGERY]
    own = {name: [each for each in found if (each.model, each.budget) == (name, "checkpoint")] for name in names}
    return [
        {"checkpoint": name, "variant": each[0].variant, "arm": "original", **_figures(each, None)}
        for name, each in own.items()
        if each
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

    def values(metric: str, *tasks: str) -> list[float]:
        asked = [each for each in own if each.metric == metric]
        by_task = ([each.value for each in asked if each.task == task and each.value is not None] for task in tasks)
        return next((found for found in by_task if found), [])

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
        "mean_bits_per_byte": _mean(own_bits),
        "stdev_bits_per_byte": statistics.stdev(own_bits) if len(own_bits) > 1 else None,
        "recovered_share": None if share is None else share.value,
        "recovered_share_low": None if share is None else share.low,
        "recovered_share_high": None if share is None else share.high,
        "mean_bits_per_byte_without_attention": _mean(values("bits_per_byte without attention", "ablation")),
        "generated_recall": _mean(values("accuracy", "generated_recall")),
        "generated_needle": _mean(values("accuracy", "generated_needle")),
        "median_tokens_per_second": statistics.median(speeds) if speeds else None,
        "max_peak_memory_bytes": max((each.peak_bytes or 0 for each in trained), default=0) or None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def exchanges_table(rows: Sequence[Row]) -> Table:
    """A line for the variants of one device that an exchange broke alike, with what mending them came to."""
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for line in exchanges(rows):
        if "damage" in line:
            lines.setdefault((line["checkpoint"], line["variant"]), {})[line.get("arm", "")] = line
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (checkpoint, variant), arms in lines.items():
        alike.setdefault((checkpoint, _exchange(arms)), []).append(variant)
    return Table(
        columns=(
            *("model", "variant", "KL nats/token", "bits per byte before", "after"),
            *("healed", "share that came back", "fine-tuned", "from nothing"),
        ),
        rows=tuple((checkpoint, ", ".join(names), *cells) for (checkpoint, cells), names in alike.items()),
        note="The attention of a trained model is exchanged, then mended with one budget of tokens: by learning from "
        "the original, by plain fine-tuning, or not at all but by a model of that variant from nothing. Means over "
        "seeds, with Student's 95 % interval of the share.",
    )


def _exchange(arms: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    damage, heal = next(iter(arms.values()))["damage"], arms.get("heal", {})
    return (
        number(damage["kl_nats_per_token"]),
        *(number(damage[f"bits_per_byte_{when}"], 4) for when in ("before", "after")),
        number(heal.get("mean_bits_per_byte"), 4),
        interval(heal.get("recovered_share"), heal.get("recovered_share_low"), heal.get("recovered_share_high")),
        *(number(arms.get(arm, {}).get("mean_bits_per_byte"), 4) for arm in ("finetune", "scratch")),
    )


def mended_table(rows: Sequence[Row]) -> Table:
    """A line for each variant and way to mend it, after those of the checkpoints themselves, with every figure."""
    mended = [line for line in exchanges(rows) if "arm" in line]
    lines = [*originals(rows), *mended] if mended else []
    names = [name for name in (lines[0] if lines else ()) if name not in ("surgery", "damage")]
    return Table(
        columns=tuple(name.replace("_", " ") for name in names),
        rows=tuple(tuple(as_text(line[name]) for name in names) for line in lines),
        note="Heal learns from the original, finetune from the text alone, scratch is a model of that variant that "
        "began with fresh weights. Shares are missing where less than 0.01 bits per byte were lost. Without attention: "
        "the same model with the output of every attention layer at zero; one that loses nothing has learnt to go "
        "round it. Recall and needle are written greedily token by token; by chance, recall is right in 29 % of the "
        "cases if one of the numbers in the text is taken, the needle in 0.1 %.",
    )
