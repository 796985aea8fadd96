"""What each variant costs and what it is worth, in one line."""

import dataclasses
from collections.abc import Sequence

from eval.query import Measured, measured, most_common_rounds, ratio_of, same_rounds
from eval.report.heads import same_by_heads
from eval.report.qualities import OverSeeds, QualityBook, Subject, qualities, subject_of
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, interval, num_bytes, number
from eval.rows import Row
from eval.statistics.ratios import RatioEstimate

# What speeds are told against; where a group does not have it, its own baseline.
REFERENCE = "mha"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantFacts:
    """One variant in whole models.

    Attributes:
        name: The series.
        status: Of its training step's row; None without one.
        tokens_per_second: Of a training step; None without times.
        speed: Speed over the reference's, above 1 is faster; None without both times.
        peak_bytes: Of a training step; where none was measured, of whole trainings.
        decoding: Tokens per second and the interval's ends, at the cache length of `Setting.decode`.
        cache_bytes: Of the decoding cache, there.
        quality: Bits per byte at equal tokens.
        quality_equal_seconds: The same at equal training time.
        recall: Accuracy of multi-query associative recall.
    """

    name: str
    status: str | None = None
    tokens_per_second: float | None = None
    speed: RatioEstimate | None = None
    peak_bytes: int | None = None
    decoding: tuple[float, float | None, float | None] | None = None
    cache_bytes: int | None = None
    quality: OverSeeds | None = None
    quality_equal_seconds: OverSeeds | None = None
    recall: OverSeeds | None = None

    @property
    def untimed(self) -> str:
        """What stands in the place of a speed that there is none of."""
        return NOTHING if self.status in (None, "ok") else str(self.status).replace("_", " ")


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
        return NOTHING if self.reference is None else self.reference.cell.variant

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
    """The training steps that most variants took together, and their decoding, of the same model where there is some.

    Args:
        rows: Of one device.
    """
    steps = measured(rows, level="model", mode="step")
    # Speed and quality of one model belong together.
    book = QualityBook(rows)
    of_trained = [each for each in steps if each.cell.model is not None and book.trained(each.cell.model) is not None]
    step = most_common_rounds(same_rounds(of_trained or steps))
    model = step[0].cell.model if step else None
    decoding = measured(rows, mode="decode")
    same_model = [each for each in decoding if each.cell.model == model]
    same_way = [each for each in same_model if step and _way(each) == _way(step[0])]
    decode = most_common_rounds(same_rounds(same_way or same_model or decoding))
    reference = next((each for each in step if each.cell.variant == REFERENCE and each.samples), None)
    reference = reference or next((each for each in step if each.cell.role == "baseline" and each.samples), None)
    return Setting(step=tuple(step), decode=tuple(decode), reference=reference)


def _way(each: Measured) -> tuple[str, str]:
    return each.cell.dtype, each.cell.execution


def variant_facts(rows: Sequence[Row]) -> list[VariantFacts]:
    """A line for every variant with a training step, a decoding step or a quality; fastest to train first."""
    setting = setting_of(rows)
    book = QualityBook(rows)
    model = setting.model
    steps = {each.cell.variant: each for each in setting.step}
    decodes = {each.cell.variant: each for each in setting.decode}
    trained = {row.quality.variant: row.quality.attention for row in rows if row.quality is not None}
    attentions = {**trained, **{name: each.cell.attention for name, each in {**decodes, **steps}.items()}}
    peaks = {name: each.peak_bytes for name, each in steps.items() if each.peak_bytes} or _training_peaks(
        rows, book.trained(model)
    )
    found = []
    for name, attention in attentions.items():
        step, decode = steps.get(name), decodes.get(name)
        reference = setting.reference
        found.append(
            VariantFacts(
                name=name,
                status=None if step is None else step.row.status,
                tokens_per_second=None if step is None else _tokens_per_second(step),
                speed=None if step is None or reference is None else ratio_of(reference, step),
                peak_bytes=peaks.get(name),
                decoding=None if decode is None else _decoding(decode),
                cache_bytes=None if decode is None else decode.cache_bytes,
                quality=book.bits_per_byte(name, attention, model=model),
                quality_equal_seconds=book.bits_per_byte(name, attention, model=model, regime="equal_seconds"),
                recall=book.recall(name, attention),
            )
        )
    return sorted(found, key=lambda each: (-(each.tokens_per_second or 0), each.name))


def variants_table(rows: Sequence[Row]) -> Table:
    """The lines as a table, with what they were measured in."""
    setting, facts = setting_of(rows), variant_facts(rows)
    return Table(
        columns=(
            "variant",
            "training tokens/s",
            "speed (×)" if setting.reference is None else f"speed over {setting.reference_name} (×)",
            "training peak",
            "decoding tokens/s",
            "cache",
            "bits per byte, equal tokens",
            "bits per byte, equal seconds",
            "recall",
        ),
        rows=tuple(variant_line(each) for each in facts),
        note=f"{setting.words} Speeds above 1 are faster, with 95 % intervals of paired ratios. Bits per byte (less is "
        "better) and recall (accuracy) are means over n seeds ± standard deviation, of evaluations where there are "
        "any, else of the trainings' own. Training peaks are those of "
        f"{'the training steps' if any(each.peak_bytes for each in setting.step) else 'whole trainings'}. "
        f"{QualityBook(rows).words(setting.model)}",
    )


def variant_line(facts: VariantFacts) -> tuple[str, ...]:
    """A line of the table."""
    speed = facts.speed
    return (
        facts.name,
        facts.untimed if facts.tokens_per_second is None else number(facts.tokens_per_second),
        NOTHING if speed is None else interval(speed.ratio, speed.low, speed.high),
        num_bytes(facts.peak_bytes),
        NOTHING if facts.decoding is None else interval(*facts.decoding),
        num_bytes(facts.cache_bytes),
        str(facts.quality or NOTHING),
        str(facts.quality_equal_seconds or NOTHING),
        str(facts.recall or NOTHING),
    )


def _training_peaks(rows: Sequence[Row], trained: Subject | None) -> dict[str, int]:
    """The largest peak of each variant's trainings of one subject, which are all of one batch size and length."""
    peaks: dict[str, int] = {}
    for quality in qualities(rows):
        of_text = quality.quantity == "bits_per_byte" and subject_of(quality) == trained
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
    low, high = timing.interval_low, timing.interval_high
    return (
        tokens / timing.median_seconds,
        None if high is None else tokens / high,
        None if low is None else tokens / low,
    )
