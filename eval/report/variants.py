"""What each variant costs and what it is worth, in one line."""

import dataclasses
from collections.abc import Iterable, Sequence

from eval.query import Measured, measured, most_common_rounds, ratio_of, same_rounds
from eval.report.quality import Experiment, OverSeeds, QualityBook, experiment_of, measured_quality
from eval.report.text import NOTHING, Table, interval, num_bytes
from eval.report.trainings import SURGERY
from eval.rows import Row
from eval.statistics import Contrast
from zoo.attention.function import function_of

# What speeds are told against; where a group does not have it, its own baseline.
REFERENCE = "mha"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantFacts:
    """One variant in whole models.

    Attributes:
        name: The series.
        attention: Its mapping as JSON; None if it is not known.
        status: Of its training step's row; None without one.
        tokens_per_second: Of a training step; None without times.
        speed: Speed over the reference's, above 1 is faster; None without both times.
        peak_bytes: Of a training step; where none was measured, of whole trainings.
        decoding: Tokens per second and the interval's ends, at the cache length of `Setting.decode`.
        cache_bytes: Of the decoding cache, there.
        quality: Bits per byte at equal tokens.
        recall: Accuracy of multi-query associative recall.
    """

    name: str
    attention: str | None
    status: str | None
    tokens_per_second: float | None
    speed: Contrast | None
    peak_bytes: int | None
    decoding: tuple[float, float | None, float | None] | None
    cache_bytes: int | None
    quality: OverSeeds | None
    recall: OverSeeds | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Which rows the lines are made of.

    Attributes:
        step: Training steps of one group.
        decode: Decoding steps of one group.
        reference: The variant that speeds are told against; None without training steps.
    """

    step: tuple[Measured, ...]
    decode: tuple[Measured, ...]
    reference: Measured | None

    @property
    def model(self) -> str | None:
        """Whose training steps they are; None without any."""
        return self.step[0].cell.model if self.step else None

    @property
    def reference_name(self) -> str:
        """The reference's variant."""
        return REFERENCE if self.reference is None else self.reference.cell.variant

    @property
    def words(self) -> str:
        """The models and lengths in a sentence, and which variants are one function in the model."""
        parts = []
        if self.step:
            cell = self.step[0].cell
            parts.append(f"Training steps of {cell.model} (B={cell.batch_size}, L={cell.length}, {cell.dtype})")
        if self.decode:
            cell = self.decode[0].cell
            where = f"after {cell.length} tokens (B={cell.batch_size}, {cell.dtype})"
            parts.append(f"decoding of {cell.model or 'one layer'} {where}")
        sentence = "; ".join(parts)
        if not parts:
            return "No training or decoding steps of a model."
        return " ".join([f"{sentence[:1].upper()}{sentence[1:]}.", *same_by_heads([*self.step, *self.decode])])


def setting_of(rows: Sequence[Row]) -> Setting:
    """The training steps that most variants of one device took together, and their decoding, of the same model."""
    steps = measured(rows, level="model", mode="step")
    # Speed and quality of one model belong together.
    book = QualityBook(rows)
    of_trained = [each for each in steps if each.cell.model is not None and book.trained(each.cell.model) is not None]
    step = most_common_rounds(same_rounds(of_trained or steps))
    decoding = measured(rows, mode="decode")
    same_model = [each for each in decoding if step and each.cell.model == step[0].cell.model]
    same_way = [each for each in same_model if _way(each) == _way(step[0])]
    decode = most_common_rounds(same_rounds(same_way or same_model or decoding))
    timed = [each for each in step if each.samples]
    reference = next((each for each in timed if each.cell.variant == REFERENCE), None)
    reference = reference or next((each for each in timed if each.cell.role == "baseline"), None)
    return Setting(step=tuple(step), decode=tuple(decode), reference=reference)


def _way(each: Measured) -> tuple[str, str]:
    return each.cell.dtype, each.cell.execution


def variant_facts(rows: Sequence[Row]) -> list[VariantFacts]:
    """A line for every variant with a training step, a decoding step or a quality; fastest to train first."""
    rows = [row for row in rows if row.quality is None or row.quality.task != SURGERY]
    setting, book = setting_of(rows), QualityBook(rows)
    steps = {each.cell.variant: each for each in setting.step}
    decodes = {each.cell.variant: each for each in setting.decode}
    attentions = {row.quality.variant: row.quality.attention for row in rows if row.quality is not None}
    attentions |= {name: each.cell.attention for name, each in {**decodes, **steps}.items()}
    peaks = {name: each.peak_bytes for name, each in steps.items() if each.peak_bytes}
    peaks = peaks or _training_peaks(rows, book.trained(setting.model))
    found = []
    for name, attention in attentions.items():
        step, decode, reference = steps.get(name), decodes.get(name), setting.reference
        found.append(
            VariantFacts(
                name=name,
                attention=attention,
                status=None if step is None else step.row.status,
                tokens_per_second=None if step is None else _tokens_per_second(step),
                speed=None if step is None or reference is None else ratio_of(reference, step),
                peak_bytes=peaks.get(name),
                decoding=None if decode is None else _decoding(decode),
                cache_bytes=None if decode is None else decode.cache_bytes,
                quality=book.bits_per_byte(name, attention, model=setting.model),
                recall=book.recall(name, attention),
            )
        )
    return sorted(found, key=lambda each: (-(each.tokens_per_second or 0), each.name))


def variants_table(rows: Sequence[Row]) -> Table:
    """The lines as a table, with what they were measured in."""
    setting, facts = setting_of(rows), variant_facts(rows)
    reference = next((each for each in facts if each.name == setting.reference_name), None)
    name = setting.reference_name
    return Table(
        columns=(
            *("variant", f"training speed over {name} (×)", "training peak", "decoding tokens/s", "cache"),
            *("bits per byte", "recall"),
        ),
        rows=tuple(line for each in facts if set((line := _line(each, reference))[1:]) != {NOTHING}),
        note=f"{setting.words} Speeds above 1 are faster, with 95 % intervals of paired ratios. Bits per byte at equal "
        f"tokens (less is better) and recall (accuracy) are values of {name}, means over n seeds ± standard deviation; "
        f"of the others the differences to it, paired by seed, where Student's 95 % interval of each tells it from 0. "
        "“as”: the same function by another implementation was trained. Training peaks are those of "
        f"{'the training steps' if any(each.peak_bytes for each in setting.step) else 'whole trainings'}. "
        f"{QualityBook(rows).words(setting.model)}",
    )


def _line(facts: VariantFacts, reference: VariantFacts | None) -> tuple[str, ...]:
    speed, untimed = facts.speed, facts.status not in (None, "ok")
    qualities_told = []
    for name in ("quality", "recall"):
        own: OverSeeds | None = getattr(facts, name)
        other: OverSeeds | None = None if reference is None else getattr(reference, name)
        # What is the reference's own training is its value again.
        is_same = own is None or other is None or own.by_seed == other.by_seed
        qualities_told.append(NOTHING if own is None else str(own) if is_same else own.against(other))
    return (
        facts.name,
        (str(facts.status).replace("_", " ") if untimed else NOTHING)
        if speed is None
        else interval(speed.value, speed.low, speed.high),
        num_bytes(facts.peak_bytes),
        NOTHING if facts.decoding is None else interval(*facts.decoding),
        num_bytes(facts.cache_bytes),
        *qualities_told,
    )


def _training_peaks(rows: Sequence[Row], trained: Experiment | None) -> dict[str, int]:
    """The largest peak of each variant's trainings of one experiment, which are all of one batch size and length."""
    peaks: dict[str, int] = {}
    for quality in measured_quality(rows):
        of_text = quality.quantity == "bits_per_byte" and experiment_of(quality) == trained
        if quality.peak_bytes is not None and of_text:
            peaks[quality.variant] = max(quality.peak_bytes, peaks.get(quality.variant, 0))
    return peaks


def _tokens_per_second(each: Measured) -> float | None:
    if each.timing is None:
        return None
    tokens = None if each.row.work is None else each.row.work.tokens
    return (tokens or each.cell.batch_size * each.cell.length) / each.timing.median_seconds


def _decoding(each: Measured) -> tuple[float, float | None, float | None] | None:
    timing, tokens = each.timing, each.cell.batch_size
    if timing is None:
        return None
    low, high = (None if end is None else tokens / end for end in (timing.interval_high, timing.interval_low))
    return tokens / timing.median_seconds, low, high


def same_by_heads(rows: Iterable[Measured]) -> list[str]:
    """A sentence for each model whose own heads make variants with different settings of heads one function.

    Where heads share keys and values, full attention is grouped attention.
    """
    found: dict[tuple[str, int, int], dict[str, dict[str, str]]] = {}
    for each in rows:
        cell = each.cell
        if cell.model is None or cell.attention is None or not cell.num_kv_heads or cell.num_kv_heads == cell.num_heads:
            continue
        heads = (cell.num_heads, cell.num_kv_heads)
        function = function_of(cell.attention_mapping, num_heads=heads[0], num_kv_heads=heads[1])
        names = found.setdefault((cell.model, *heads), {}).setdefault(function, {})
        setting = function_of(cell.attention_mapping)
        # Ways to compute one setting are not worth a word: the one with the plainest name stands for all.
        names[setting] = min(names.get(setting, cell.variant), cell.variant, key=len)
    return [
        f"In {model} {heads} heads share {kv_heads} heads of keys and values: {' and '.join(names.values())} are one "
        "function there."
        for (model, heads, kv_heads), functions in found.items()
        for names in functions.values()
        if len(names) > 1
    ]
