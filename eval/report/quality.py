"""How good each variant is, over seeds, and which figures of which trainings may stand beside each other.

An experiment is a model on some data. Within one, figures are compared that were found on the same terms: one budget,
and settings that all share. Of each variant they are those of trainings that differ in their seed only.
"""

import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eval.query import grouped
from eval.rows import Quality, Row
from eval.rows.schema import Budget
from eval.statistics import Contrast, paired_difference
from zoo.attention.function import function_of

RECALL_TASK = "mqar"
TEXT_TASKS = ("language", "masked")
# What a reader may compare without a clock, the better first.
COMPARABLE: tuple[Budget, ...] = ("equal_tokens", "checkpoint")


class OverSeeds(NamedTuple):
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
    def figure(self) -> Contrast:
        """The mean between the ends of its standard deviation."""
        mean, spread = self.mean, self.spread
        low, high = (None, None) if spread is None else (mean - spread, mean + spread)
        return Contrast(value=mean, low=low, high=high)

    @property
    def source(self) -> str:
        """What else was measured than the variant in a comparison; nothing to say where nothing."""
        return ", checkpoint" * self.checkpoint + (f", as {self.of}" if self.of else "")

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        return f"{self.mean:.3f}{spread} (n={len(self.by_seed)}){self.source}"

    def against(self, reference: "OverSeeds | None") -> str | None:
        """The difference to the reference in words, paired by seed; None without a seed that both have.

        A difference that the seeds cannot tell from 0 is none.
        """
        shared = [] if reference is None else [seed for seed in self.by_seed if seed in reference.by_seed]
        if reference is None or not shared or self.checkpoint != reference.checkpoint:
            return None
        found = paired_difference(*([each.by_seed[seed] for seed in shared] for each in (self, reference)))
        if found.low is None or found.high is None:
            told = "one seed tells no difference"
        elif found.low <= 0 <= found.high:
            # So many digits that the width is not 0, and no more than four.
            half = (found.high - found.low) / 2
            told = f"no difference found (± {half:{'.3f' if half >= 0.0005 else '.1g'}})"
        else:
            told = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        return f"{told}{self.source}"


def over_seeds(trained: Iterable[Quality], *, of: str | None = None, checkpoint: bool = False) -> OverSeeds | None:
    """The figure of trainings that differ in their seed only; None without any.

    Of each seed an evaluation counts before what the training itself reported.
    """
    ordered = sorted(trained, key=lambda quality: not quality.is_of_training)
    by_seed = {quality.seed: quality.value for quality in ordered if quality.value is not None}
    return OverSeeds(by_seed, of, checkpoint) if by_seed else None


def measured_quality(rows: Iterable[Row]) -> list[Quality]:
    """The quality of every row that has a value."""
    return [row.quality for row in rows if row.quality is not None and row.quality.value is not None]


def overall(rows: Iterable[Row], quantity: str, *tasks: str) -> list[Quality]:
    """Measured figures of a quantity of some tasks, each over all settings of its task."""
    found = [each for each in measured_quality(rows) if each.is_overall]
    return [each for each in found if each.quantity == quantity and each.task in tasks]


def of_one_training(found: Iterable[Quality]) -> list[Quality]:
    """Of one variant's figures those of trainings that differ in their seed only: of most seeds, then the last."""
    trained = list(grouped(found, lambda quality: quality.training).values())
    return max(reversed(trained), key=lambda group: len({quality.seed for quality in group}), default=[])


class Experiment(NamedTuple):
    """What was trained on what: figures of two experiments never stand in one column.

    The contents that were trained on and measured on are named by their digests, and None where they are not known.
    """

    model: str
    data: str
    trained_on: str | None
    measured_on: str | None

    def __str__(self) -> str:
        return f"{self.model} on {self.data}"


def experiment_of(quality: Quality) -> Experiment:
    """Whose figure it is."""
    return Experiment(quality.model, quality.data, quality.trained_on, quality.measured_on)


def comparable(found: Iterable[Quality], *, model: str | None = None) -> list[Quality]:
    """Of figures of one quantity those that may stand beside each other, of each budget.

    They are of the experiment in which most variants were compared at equal tokens, then as checkpoints; of each budget
    on the terms that most variants had, then those of most tokens; of each variant of one training.

    Args:
        found: Figures of one quantity of one task.
        model: The only model to look at; None for any.
    """
    asked = [each for each in found if each.budget in COMPARABLE and model in (None, each.model)]
    experiments = grouped(asked, experiment_of).values()
    own = max(experiments, key=lambda own: [_num_variants(own, budget) for budget in COMPARABLE], default=[])
    kept = []
    for budget, trained in grouped(own, lambda quality: quality.budget).items():
        on_terms = grouped(trained, lambda quality: quality.terms)
        common = max(on_terms, key=lambda terms: (_num_variants(on_terms[terms], budget), terms[0] or 0))
        for of_variant in grouped(on_terms[common], lambda quality: quality.variant).values():
            kept += of_one_training(of_variant)
    return kept


def _num_variants(found: Sequence[Quality], budget: Budget) -> int:
    return len({quality.variant for quality in found if quality.budget == budget})


def reached_by(variant: str, attention: str | None, found: Sequence[Quality]) -> OverSeeds | None:
    """What a variant reached at equal tokens; where it was not trained, another one that is the same function.

    Where no such training was at equal tokens, it is that of checkpoints which were trained for themselves, and says
    so.

    Args:
        variant: Its series.
        attention: Its mapping as JSON, to know the function by.
        found: Comparable figures of one quantity.
    """
    for budget in COMPARABLE:
        own = grouped((each for each in found if each.budget == budget), lambda quality: quality.variant)
        same = [name for name in own if attention and computed_by(own[name][0].attention) == computed_by(attention)]
        name = variant if variant in own else next(iter(same), None)
        if name is not None:
            return over_seeds(own[name], of=None if name == variant else name, checkpoint=budget == "checkpoint")
    return None


@functools.lru_cache(maxsize=512)
def computed_by(attention: str | None) -> str | None:
    """Names the function that a mapping, as JSON, computes; None without a mapping."""
    return None if attention is None else function_of(json.loads(attention))
