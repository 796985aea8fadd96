"""How good each variant is, over seeds: what stands beside every speed."""

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Iterable, Sequence

from eval.rows import Quality, Row
from eval.rows.schema import Regime
from zoo.attention.function import function_of

RECALL_TASK = "mqar"
_TEXT_TASKS = ("language", "masked")
# What a reader may compare without a clock, the better first.
COMPARABLE: tuple[Regime, ...] = ("equal_tokens", "checkpoint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """A figure of several trainings that differ in their seed only.

    Attributes:
        mean: Over seeds.
        spread: Standard deviation over seeds; None for one.
        num_seeds: How many.
        of: The variant that was trained, where it is another implementation of the same function.
        checkpoint: Of models that were not trained for a comparison.
    """

    mean: float
    spread: float | None
    num_seeds: int
    of: str | None = None
    checkpoint: bool = False

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        return (
            f"{self.mean:.3f}{spread} (n={self.num_seeds})"
            + ", checkpoint" * self.checkpoint
            + (f", as {self.of}" if self.of else "")
        )


def over_seeds(values: Iterable[float]) -> OverSeeds | None:
    """Mean and spread; None for no values."""
    found = list(values)
    if not found:
        return None
    spread = statistics.stdev(found) if len(found) > 1 else None
    return OverSeeds(mean=statistics.fmean(found), spread=spread, num_seeds=len(found))


def qualities(rows: Iterable[Row]) -> list[Quality]:
    """The quality of every row that has a value."""
    return [row.quality for row in rows if row.quality is not None and has_value(row.quality)]


def has_value(quality: Quality) -> bool:
    """Whether there is a figure, and it is one."""
    return quality.value is not None and math.isfinite(quality.value)


def one_per_seed(found: Sequence[Quality]) -> dict[int, Quality]:
    """A figure of each seed of one way to train, an evaluation's before a training's own."""
    ordered = sorted(of_one_training(found), key=lambda quality: not quality.is_of_training)
    return {quality.seed: quality for quality in ordered}


def of_one_training(found: Iterable[Quality]) -> list[Quality]:
    """The figures of the trainings that differ in their seed only: of several such, those of most seeds, then the last.

    Args:
        found: Of one variant.
    """
    groups = list(by_training(found).values())
    seeds = [len({quality.seed for quality in group}) for group in groups]
    return next((group for count, group in zip(seeds[::-1], groups[::-1], strict=True) if count == max(seeds)), [])


def by_training(found: Iterable[Quality]) -> dict[tuple[str | int | None, ...], list[Quality]]:
    """The figures by how their models were trained, seeds apart."""
    groups: dict[tuple[str | int | None, ...], list[Quality]] = {}
    for quality in found:
        groups.setdefault(quality.training, []).append(quality)
    return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What was trained on what: figures of two subjects never stand in one column.

    Attributes:
        model: Its name.
        data: The data's name.
        trained_on: Names the content that was trained on; None if it is not known.
        measured_on: Names the content that was measured on.
    """

    model: str
    data: str
    trained_on: str | None = None
    measured_on: str | None = None

    def __str__(self) -> str:
        return f"{self.model} on {self.data}"


def subject_of(quality: Quality) -> Subject:
    """Whose figure it is."""
    return Subject(
        model=quality.model, data=quality.data, trained_on=quality.trained_on, measured_on=quality.measured_on
    )


def main_subject(found: Iterable[Quality], *, model: str | None = None) -> Subject | None:
    """The subject in which most variants were compared at equal tokens; of those, the one with most, then the first.

    Args:
        found: Figures of one metric of one task.
        model: The only model to look at; None for any.

    Returns:
        None if there is no figure of a comparison or a checkpoint, or none of the model.
    """
    variants: dict[Subject, tuple[set[str], set[str]]] = {}
    for quality in found:
        if quality.regime in COMPARABLE and model in (None, quality.model):
            sets = variants.setdefault(subject_of(quality), (set(), set()))
            sets[COMPARABLE.index(quality.regime)].add(quality.variant)
    return max(variants, key=lambda subject: tuple(len(names) for names in variants[subject]), default=None)


def of_one_budget(found: Sequence[Quality]) -> list[Quality]:
    """The figures of a subject, of each regime only those of the budget that most variants had.

    Args:
        found: Of one subject.
    """
    variants: dict[Regime, dict[tuple[int | None, str | None], set[str]]] = {}
    for quality in found:
        variants.setdefault(quality.regime, {}).setdefault(quality.budget, set()).add(quality.variant)
    kept = {
        regime: max(budgets, key=lambda budget: (len(budgets[budget]), budget[0] or 0))
        for regime, budgets in variants.items()
    }
    return [quality for quality in found if quality.budget == kept[quality.regime]]


def of_main_subject(found: Sequence[Quality]) -> list[Quality]:
    """The figures of one model, data and regime: of checkpoints only where nothing was compared at equal tokens.

    Of each variant they are those of one way to train.
    """
    subject = main_subject(found)
    own = of_one_budget([quality for quality in found if subject_of(quality) == subject])
    kept = next((kept for regime in COMPARABLE if (kept := [each for each in own if each.regime == regime])), [])
    variants: dict[str, list[Quality]] = {}
    for quality in kept:
        variants.setdefault(quality.variant, []).append(quality)
    one_way = {id(quality) for each in variants.values() for quality in of_one_training(each)}
    return [quality for quality in kept if id(quality) in one_way]


def recall_rows(rows: Sequence[Row]) -> list[Row]:
    """Accuracies by number of pairs, and those that were skipped, of one model, data and regime."""
    return comparable_rows(
        row
        for row in rows
        if row.quality is not None
        and row.quality.task == RECALL_TASK
        and row.quality.num_pairs is not None
        and row.quality.quantity == "accuracy"
    )


def comparable_rows(rows: Iterable[Row]) -> list[Row]:
    """Of quality rows of one task, those that may stand in one figure."""
    found = [row for row in rows if row.quality is not None]
    kept = {id(quality) for quality in of_main_subject([row.quality for row in found if row.quality])}
    return [row for row in found if id(row.quality) in kept]


class QualityBook:
    """Looks up what variants reached: bits per byte, and accuracy at recall."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Takes the rows of one device."""
        found = [quality for quality in qualities(rows) if quality.is_overall]
        self._text = [each for each in found if each.task in _TEXT_TASKS and each.quantity == "bits_per_byte"]
        self._recall = [each for each in found if each.task == RECALL_TASK and each.quantity == "accuracy"]
        self.recalling = main_subject(self._recall)

    def trained(self, model: str | None = None) -> Subject | None:
        """Whose bits per byte there are: of the named model and of no other; without a name, of the main one."""
        return main_subject(self._text, model=model)

    def bits_per_byte(
        self, variant: str, attention: str | None, *, model: str | None = None, regime: Regime = "equal_tokens"
    ) -> OverSeeds | None:
        """Of held-out text, in the subject that `trained` names.

        Where no training was at equal tokens, it is that of checkpoints which were trained for themselves, and says so.
        """
        return self._in_regime(self._text, self.trained(model), variant, attention, regime)

    def recall(self, variant: str, attention: str | None) -> OverSeeds | None:
        """Accuracy of multi-query associative recall, over all numbers of pairs, in the subject `recalling`."""
        return self._in_regime(self._recall, self.recalling, variant, attention, "equal_tokens")

    def words(self, model: str | None = None) -> str:
        """Whose figures `bits_per_byte` and `recall` are, in a sentence."""
        trained = self.trained(model)
        text = f"of {trained}" if trained is not None else f"none, {model or 'no model'} was not trained on text"
        recall = "none was trained" if self.recalling is None else f"of {self.recalling}"
        return f"Bits per byte: {text}; recall: {recall}."

    def _in_regime(
        self,
        wanted: Sequence[Quality],
        subject: Subject | None,
        variant: str,
        attention: str | None,
        regime: Regime,
    ) -> OverSeeds | None:
        own = of_one_budget([each for each in wanted if subject_of(each) == subject])
        found = self._of_variant([each for each in own if each.regime == regime], variant, attention)
        if found is not None or regime != "equal_tokens":
            return found
        alone = self._of_variant([each for each in own if each.regime == "checkpoint"], variant, attention)
        return None if alone is None else dataclasses.replace(alone, checkpoint=True)

    @staticmethod
    def _of_variant(wanted: Sequence[Quality], variant: str, attention: str | None) -> OverSeeds | None:
        own = [each for each in wanted if each.variant == variant]
        if own:
            return over_seeds(each.value for each in one_per_seed(own).values() if each.value is not None)
        equal = [each for each in wanted if attention is not None and _function(each.attention) == _function(attention)]
        if not equal:
            return None
        # One variant's seeds, not those of several together.
        name = equal[0].variant
        found = over_seeds(
            each.value
            for each in one_per_seed([each for each in equal if each.variant == name]).values()
            if each.value is not None
        )
        return None if found is None else dataclasses.replace(found, of=name)


@functools.lru_cache(maxsize=512)
def _function(attention: str | None) -> str | None:
    """Names the function that a mapping computes; None without a mapping."""
    return None if attention is None else function_of(json.loads(attention))
