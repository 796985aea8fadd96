"""What each variant costs and what it is worth, in one line."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from eval.query import Measured, measured, most_common_rounds, ratio_of, same_rounds
from eval.report.quality import (
    COMPARABLE,
    RECALL_TASK,
    TEXT_TASKS,
    Experiment,
    OverSeeds,
    comparable,
    experiment_of,
    measured_quality,
    overall,
    reached_by,
)
from eval.report.text import NOTHING, Table, interval, num_bytes
from eval.report.trainings import SURGERY
from eval.rows import Row
from eval.statistics import Contrast
from zoo.attention.function import function_of

# What speeds are told against; where a group does not have it, its own baseline.
REFERENCE = "mha"


class VariantFacts(NamedTuple):
    """One variant in whole models; what was not measured is None.

    Attributes:
        attention: Its mapping as JSON.
        status: Of its training step's row.
        speed: Of a training step over the reference's; above 1 is faster.
        peak_bytes: Of a training step; where none was measured, of whole trainings.
        decoding: Tokens per second, with a cache of `cache_bytes`.
        quality: Bits per byte of text.
        recall: Accuracy of multi-query associative recall.
    """

    name: str
    attention: str | None
    status: str | None
    speed: Contrast | None
    peak_bytes: int | None
    decoding: Contrast | None
    cache_bytes: int | None
    quality: OverSeeds | None
    recall: OverSeeds | None


class Variants:
    """The variants of one device, in the training steps that most of them took together.

    Attributes:
        steps: Training steps of one group.
        decoding: Decoding steps of one group, of the same model if there are any.
        reference_name: The variant that speeds are told against.
        trained: Whose bits per byte are told: of that model and no other; None without any.
        trained_to_recall: Whose accuracy of recall is told; None without any.
        facts: Of every variant with a training step, a decoding step or a quality; fastest to train first.
        reference: Those of the reference, if there are any.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Finds them in the rows of one device."""
        rows = [row for row in rows if row.quality is None or row.quality.task != SURGERY]
        text = overall(rows, "bits_per_byte", *TEXT_TASKS)
        self.steps, self.decoding = _timed_together(rows, {each.model for each in text if each.budget in COMPARABLE})
        text = comparable(text, model=self.steps[0].cell.model if self.steps else None)
        recall = comparable(overall(rows, "accuracy", RECALL_TASK))
        self.trained, self.trained_to_recall = (experiment_of(found[0]) if found else None for found in (text, recall))
        timed = [each for each in self.steps if each.samples]
        references = [each for each in timed if each.cell.variant == REFERENCE]
        references += [each for each in timed if each.cell.role == "baseline"]
        self.reference_name = references[0].cell.variant if references else REFERENCE

        steps, decoding = ({each.cell.variant: each for each in found} for found in (self.steps, self.decoding))
        attentions = {row.quality.variant: row.quality.attention for row in rows if row.quality is not None}
        attentions |= {name: each.cell.attention for name, each in {**decoding, **steps}.items()}
        peaks = {name: each.peak_bytes for name, each in steps.items() if each.peak_bytes}
        peaks = peaks or _training_peaks(rows, self.trained)
        seconds = {name: step.timing.median_seconds for name, step in steps.items() if step.timing is not None}
        self.facts = []
        for name in sorted(attentions, key=lambda name: (seconds.get(name, math.inf), name)):
            step, decoded, attention = steps.get(name), decoding.get(name), attentions[name]
            facts = VariantFacts(
                name=name,
                attention=attention,
                status=None if step is None else step.row.status,
                speed=ratio_of(references[0], step) if step is not None and references else None,
                peak_bytes=peaks.get(name),
                decoding=None if decoded is None else _decoding(decoded),
                cache_bytes=None if decoded is None else decoded.cache_bytes,
                quality=reached_by(name, attention, text),
                recall=reached_by(name, attention, recall),
            )
            self.facts.append(facts)
        self.reference = next((each for each in self.facts if each.name == self.reference_name), None)


def _timed_together(rows: Sequence[Row], trained: Collection[str]) -> tuple[list[Measured], list[Measured]]:
    """The training steps that most variants took together, and their decoding, of the same model."""
    steps, decoding = measured(rows, level="model", mode="step"), measured(rows, mode="decode")
    # Speed and quality of one model belong together.
    steps = most_common_rounds(same_rounds([each for each in steps if each.cell.model in trained] or steps))
    if steps:
        own = steps[0].cell
        same_model = [each for each in decoding if each.cell.model == own.model]
        same_way = [each for each in same_model if (each.cell.dtype, each.cell.execution) == (own.dtype, own.execution)]
        decoding = same_way or same_model or decoding
    return steps, most_common_rounds(same_rounds(decoding))


def _training_peaks(rows: Sequence[Row], trained: Experiment | None) -> dict[str, int]:
    """The largest peak of each variant's trainings of one experiment, which are all of one batch size and length."""
    peaks: dict[str, int] = {}
    for each in measured_quality(rows):
        if each.quantity == "bits_per_byte" and experiment_of(each) == trained and each.peak_bytes is not None:
            peaks[each.variant] = max(peaks.get(each.variant, 0), each.peak_bytes)
    return peaks


def _decoding(each: Measured) -> Contrast | None:
    timing, tokens = each.timing, each.cell.batch_size
    if timing is None:
        return None
    low, high = (None if end is None else tokens / end for end in (timing.interval_high, timing.interval_low))
    return Contrast(value=tokens / timing.median_seconds, low=low, high=high)


def variants_table(rows: Sequence[Row]) -> Table:
    """A line for each variant of which anything is known, with what they were measured in."""
    variants = Variants(rows)
    name, steps, reference = variants.reference_name, variants.steps, variants.reference
    lines = []
    for each in variants.facts:
        untimed = each.speed is None and each.status not in (None, "ok")
        known = {
            f"training speed over {name} (×)": f"{each.status}".replace("_", " ") if untimed else interval(each.speed),
            "training peak": num_bytes(each.peak_bytes),
            "decoding tokens/s": interval(each.decoding),
            "cache": num_bytes(each.cache_bytes),
            "bits per byte": _told(each.quality, reference and reference.quality),
            "recall": _told(each.recall, reference and reference.recall),
        }
        if set(known.values()) != {NOTHING}:
            lines.append({"variant": each.name, **known})
    untrained = f"none, {(steps[0].cell.model if steps else None) or 'no model'} was not trained on text"
    return Table(
        lines,
        note=f"{_timed(variants)} Speeds above 1 are faster, with 95 % intervals of paired ratios. Bits per byte at "
        f"equal tokens (less is better) and recall (accuracy) are values of {name}, means over n seeds ± standard "
        "deviation; of the others the differences to it, paired by seed, where Student's 95 % interval of each tells "
        "it from 0. “as”: the same function by another implementation was trained. Training peaks are those of "
        f"{'the training steps' if any(each.peak_bytes for each in steps) else 'whole trainings'}. "
        f"Bits per byte: {untrained if variants.trained is None else f'of {variants.trained}'}; recall: "
        f"{'none was trained' if variants.trained_to_recall is None else f'of {variants.trained_to_recall}'}.",
    )


def _told(own: OverSeeds | None, reference: OverSeeds | None) -> str:
    if own is None:
        return NOTHING
    # What is the reference's own training is its value again.
    is_same = reference is None or own.by_seed == reference.by_seed
    return str(own) if is_same else own.against(reference) or str(own)


def _timed(variants: Variants) -> str:
    """The models and lengths in a sentence, and which variants are one function in the model."""
    parts = []
    for cell in [each.cell for each in variants.steps[:1]]:
        parts.append(f"Training steps of {cell.model} (B={cell.batch_size}, L={cell.length}, {cell.dtype})")
    for cell in [each.cell for each in variants.decoding[:1]]:
        what = f"{'decoding' if parts else 'Decoding'} of {cell.model or 'one layer'} after {cell.length} tokens"
        parts.append(f"{what} (B={cell.batch_size}, {cell.dtype})")
    sentence = "; ".join(parts) or "No training or decoding steps of a model"
    return " ".join([f"{sentence}.", *same_by_heads([*variants.steps, *variants.decoding])])


def same_by_heads(rows: Iterable[Measured]) -> list[str]:
    """A sentence for each model whose own heads make variants with different settings of heads one function.

    Where heads share keys and values, full attention is grouped attention.
    """
    found: dict[tuple[str, int, int, str], dict[str, str]] = {}
    for cell in [each.cell for each in rows]:
        heads, kv_heads = cell.num_heads, cell.num_kv_heads
        if cell.model is None or cell.attention is None or not kv_heads or kv_heads == heads:
            continue
        function = function_of(cell.attention_mapping, num_heads=heads, num_kv_heads=kv_heads)
        names = found.setdefault((cell.model, heads, kv_heads, function), {})
        setting = function_of(cell.attention_mapping)
        # Ways to compute one setting are not worth a word: the one with the plainest name stands for all.
        names[setting] = min(names.get(setting, cell.variant), cell.variant, key=len)
    return [
        f"In {model} {heads} heads share {kv_heads} heads of keys and values: {' and '.join(names.values())} are one "
        "function there."
        for (model, heads, kv_heads, _), names in found.items()
        if len(names) > 1
    ]
