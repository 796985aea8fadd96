"""How good each variant is, over seeds: what stands beside every speed."""

import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence

from eval.rows import Quality, Row
from eval.rows.schema import Budget
from eval.statistics import Contrast, paired_difference
from zoo.attention.function import function_of

RECALL_TASK = "mqar"
TEXT_TASKS = ("language", "masked")
# What a reader may compare without a clock, the better first.
COMPARABLE: tuple[Budget, ...] = ("equal_tokens", "checkpoint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """A figure of several trainings that differ in their seed only.

    Attributes:
        by_seed: The value of each seed.
        of: The variant that was trained, where it is another implementation of the same function.
        checkpoint: Of models that were not trained for a comparison.
    """

    by_seed: Mapping[int, float]
    of: str | None = None
    checkpoint: bool = False

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.by_seed.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def _source(self) -> str:
        return ", checkpoint" * self.checkpoint + (f", as {self.of}" if self.of else "")

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        return f"{self.mean:.3f}{spread} (n={len(self.by_seed)}){self._source}"

    def minus(self, reference: "OverSeeds | None") -> Contrast | None:
        """The difference to the reference, paired by seed; None without a seed that both have."""
        shared = [] if reference is None else [seed for seed in self.by_seed if seed in reference.by_seed]
        if reference is None or not shared or self.checkpoint != reference.checkpoint:
            return None
        return paired_difference(*([each.by_seed[seed] for seed in shared] for each in (self, reference)))

    def against(self, reference: "OverSeeds | None") -> str:
        """The difference in words, where the seeds can tell one; the value itself where there is nothing to compare."""
        found = self.minus(reference)
        return str(self) if found is None else f"{difference_words(found)}{self._source}"


def difference_words(found: Contrast) -> str:
    """A difference with its interval; one that the seeds cannot tell from 0 is none."""
    if found.low is None or found.high is None:
        return "one seed tells no difference"
    if found.low <= 0 <= found.high:
        # So many digits that the width is not 0, and no more than four.
        half = (found.high - found.low) / 2
        return f"no difference found (± {half:.3f})" if half >= 0.0005 else f"no difference found (± {half:.1g})"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def over_seeds(found: Iterable[Quality]) -> OverSeeds | None:
    """The figures of one way to train a variant; None without any."""
    by_seed = {seed: each.value for seed, each in one_per_seed(found).items() if each.value is not None}
    return OverSeeds(by_seed=by_seed) if by_seed else None


def measured_quality(rows: Iterable[Row]) -> list[Quality]:
    """The quality of every row that has a value."""
    return [row.quality for row in rows if row.quality is not None and row.quality.value is not None]


def one_per_seed(found: Iterable[Quality]) -> dict[int, Quality]:
    """A figure of each seed of one way to train, an evaluation's before a training's own."""
    ordered = sorted(of_one_training(found), key=lambda quality: not quality.is_of_training)
    return {quality.seed: quality for quality in ordered}


def of_one_training(found: Iterable[Quality]) -> list[Quality]:
    """Of one variant's figures those of trainings that differ in their seed only: of most seeds, then the last."""
    groups = list(by_training(found).values())
    return max(reversed(groups), key=lambda group: len({quality.seed for quality in group}), default=[])


def by_training(found: Iterable[Quality]) -> dict[tuple[str | int | None, ...], list[Quality]]:
    """The figures by how their models were trained, seeds apart."""
    groups: dict[tuple[str | int | None, ...], list[Quality]] = {}
    for quality in found:
        groups.setdefault(quality.training, []).append(quality)
    return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What was trained on what: figures of two experiments never stand in one column.

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


def experiment_of(quality: Quality) -> Experiment:
    """Whose figure it is."""
    return Experiment(
        model=quality.model, data=quality.data, trained_on=quality.trained_on, measured_on=quality.measured_on
    )


def main_experiment(found: Iterable[Quality], *, model: str | None = None) -> Experiment | None:
    """The experiment in which most variants were compared at equal tokens; of those, the one with most, then the first.

    Args:
        found: Figures of one metric of one task.
        model: The only model to look at; None for any.

    Returns:
        None if there is no figure of a comparison or a checkpoint, or none of the model.
    """
    variants: dict[Experiment, dict[Budget, set[str]]] = {}
    for quality in found:
        if quality.budget in COMPARABLE and model in (None, quality.model):
            sets = variants.setdefault(experiment_of(quality), {budget: set() for budget in COMPARABLE})
            sets[quality.budget].add(quality.variant)
    return max(variants, key=lambda experiment: [len(names) for names in variants[experiment].values()], default=None)


def on_common_terms(found: Sequence[Quality]) -> list[Quality]:
    """The figures of an experiment, of each budget only those on the terms that most variants had."""
    variants: dict[Budget, dict[tuple[int | None, str | None], set[str]]] = {}
    for quality in found:
        variants.setdefault(quality.budget, {}).setdefault(quality.terms, set()).add(quality.variant)
    kept = {
        budget: max(trained, key=lambda terms: (len(trained[terms]), terms[0] or 0))
        for budget, trained in variants.items()
    }
    return [quality for quality in found if quality.terms == kept[quality.budget]]


def of_main_experiment(found: Sequence[Quality]) -> list[Quality]:
    """The figures of one model, data and budget: of checkpoints only where nothing was compared at equal tokens.

    Of each variant they are those of one way to train.
    """
    experiment = main_experiment(found)
    own = on_common_terms([quality for quality in found if experiment_of(quality) == experiment])
    kept = next((kept for budget in COMPARABLE if (kept := [each for each in own if each.budget == budget])), [])
    variants: dict[str, list[Quality]] = {}
    for quality in kept:
        variants.setdefault(quality.variant, []).append(quality)
    one_way = {id(quality) for each in variants.values() for quality in of_one_training(each)}
    return [quality for quality in kept if id(quality) in one_way]


def comparable_rows(rows: Iterable[Row]) -> list[Row]:
    """Of quality rows of one task, those that may stand in one figure."""
    found = [row for row in rows if row.quality is not None]
    kept = {id(quality) for quality in of_main_experiment([row.quality for row in found if row.quality])}
    return [row for row in found if id(row.quality) in kept]


class QualityBook:
    """Looks up what variants reached: bits per byte, and accuracy at recall."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Takes the rows of one device."""
        found = [quality for quality in measured_quality(rows) if quality.is_overall]
        self._text = [each for each in found if each.task in TEXT_TASKS and each.quantity == "bits_per_byte"]
        self._recall = [each for each in found if each.task == RECALL_TASK and each.quantity == "accuracy"]
        self.recalling = main_experiment(self._recall)

    def trained(self, model: str | None = None) -> Experiment | None:
        """Whose bits per byte there are: of the named model and of no other; without a name, of the main one."""
        return main_experiment(self._text, model=model)

    def bits_per_byte(self, variant: str, attention: str | None, *, model: str | None = None) -> OverSeeds | None:
        """Of held-out text at equal tokens, in the experiment that `trained` names.

        Where no training was at equal tokens, it is that of checkpoints which were trained for themselves, and says so.
        """
        return self._found(self._text, self.trained(model), variant, attention)

    def recall(self, variant: str, attention: str | None) -> OverSeeds | None:
        """Accuracy of multi-query associative recall, over all numbers of pairs, in the experiment `recalling`."""
        return self._found(self._recall, self.recalling, variant, attention)

    def words(self, model: str | None = None) -> str:
        """Whose figures `bits_per_byte` and `recall` are, in a sentence."""
        trained = self.trained(model)
        text = f"of {trained}" if trained is not None else f"none, {model or 'no model'} was not trained on text"
        recall = "none was trained" if self.recalling is None else f"of {self.recalling}"
        return f"Bits per byte: {text}; recall: {recall}."

    @staticmethod
    def _found(
        wanted: Sequence[Quality], experiment: Experiment | None, variant: str, attention: str | None
    ) -> OverSeeds | None:
        own = on_common_terms([each for each in wanted if experiment_of(each) == experiment])
        for budget in COMPARABLE:
            found = _of_variant([each for each in own if each.budget == budget], variant, attention)
            if found is not None:
                return dataclasses.replace(found, checkpoint=budget == "checkpoint")
        return None


def _of_variant(wanted: Sequence[Quality], variant: str, attention: str | None) -> OverSeeds | None:
    own = over_seeds(each for each in wanted if each.variant == variant)
    equal = [each for each in wanted if attention is not None and _function(each.attention) == _function(attention)]
    if own is not None or not equal:
        return own
    # One variant's seeds, not those of several together.
    name = equal[0].variant
    found = over_seeds(each for each in equal if each.variant == name)
    return None if found is None else dataclasses.replace(found, of=name)


@functools.lru_cache(maxsize=512)
def _function(attention: str | None) -> str | None:
    """Names the function that a mapping computes; None without a mapping."""
    return None if attention is None else function_of(json.loads(attention))
