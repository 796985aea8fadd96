"""What trainings reached, by what may be compared, each comparison under a name of its own."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.report.qualities import Subject, by_training, one_per_seed, subject_of
from eval.rows import Quality
from eval.rows.schema import Regime

# Digits of a digest that tell the few of one table apart.
_SHOWN = 8
# What may be compared: one subject and quantity, under one regime, of one budget.
Comparison = tuple[Subject, str, Regime, tuple[int | None, str | None]]


def trainings(found: Iterable[Quality]) -> dict[Comparison, dict[str, dict[int, Quality]]]:
    """Comparison -> variant -> seed -> what training itself reported last, over all settings of its task.

    A variant that was trained in several ways within a comparison stands there once for each, with its steps and the
    beginning of its settings' digest.
    """
    compared: dict[Comparison, dict[str, list[Quality]]] = {}
    for quality in found:
        if quality.is_of_training and quality.is_overall:
            comparison = (subject_of(quality), quality.quantity, quality.regime, quality.budget)
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
    """The subject of each, with what tells those of one name apart: the content of data, and settings that differ."""
    groups: dict[tuple[str, str, Regime], list[Comparison]] = {}
    for comparison in comparisons:
        subject, quantity, regime, _ = comparison
        groups.setdefault((str(subject), quantity, regime), []).append(comparison)
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
    subject, _, _, (_, settings) = comparison
    contents = {"trained on": subject.trained_on, "measured on": subject.measured_on}
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
