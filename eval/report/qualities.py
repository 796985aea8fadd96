"""How good each variant is, over seeds: what stands beside every speed."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from eval.report.wording import NOTHING
from eval.rows import Quality, Row

# A run's own last validation value, where nothing asked the model afterwards.
_VALIDATION = "val_"
# They change how a function is computed, not which.
_NO_FUNCTION = ("name", "implementation", "chunk_size", "tile_size")


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


def metric_of(quality: Quality) -> str:
    """The metric's name, whether a run or an evaluation gave it."""
    return quality.metric.removeprefix(_VALIDATION)


def is_overall(quality: Quality) -> bool:
    """Whether the figure is over all settings of its task."""
    return all(getattr(quality, axis) is None for axis in ("length", "num_pairs", "depth", "position"))


def one_per_seed(found: Sequence[Quality]) -> dict[int, Quality]:
    """A figure of each seed, an evaluation's before a training's own."""
    ordered = sorted(found, key=lambda quality: not quality.metric.startswith(_VALIDATION))
    return {quality.seed: quality for quality in ordered}


class QualityBook:
    """Looks up what variants reached: bits per byte, and accuracy at recall."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Takes the rows of one device."""
        self._found = [quality for quality in qualities(rows) if is_overall(quality)]
        self.models = list(dict.fromkeys(q.model for q in self._found if metric_of(q) == "bits_per_byte"))

    def bits_per_byte(
        self, variant: str, attention: str | None, *, model: str | None = None, regime: str = "equal_tokens"
    ) -> OverSeeds | None:
        """Of held-out text; of the named model, or of the first that was trained.

        Where no training was at equal tokens, it is that of checkpoints which were trained for themselves, and says so.
        """
        chosen = model if model in self.models else next(iter(self.models), None)
        own = [each for each in self._found if metric_of(each) == "bits_per_byte" and each.model == chosen]
        found = self._of_variant([each for each in own if each.regime == regime], variant, attention)
        if found is not None or regime != "equal_tokens":
            return found
        alone = self._of_variant([each for each in own if each.regime == "checkpoint"], variant, attention)
        return None if alone is None else dataclasses.replace(alone, checkpoint=True)

    def recall(self, variant: str, attention: str | None) -> OverSeeds | None:
        """Accuracy of multi-query associative recall, over all numbers of pairs."""
        wanted = [each for each in self._found if each.task == "mqar" and metric_of(each) == "accuracy"]
        return self._of_variant(wanted, variant, attention)

    def beside(self, variant: str, attention: str | None) -> tuple[str, str]:
        """Bits per byte and recall, as table cells."""
        found = self.bits_per_byte(variant, attention), self.recall(variant, attention)
        return (str(found[0] or NOTHING), str(found[1] or NOTHING))

    @staticmethod
    def _of_variant(wanted: Sequence[Quality], variant: str, attention: str | None) -> OverSeeds | None:
        own = [each for each in wanted if each.variant == variant]
        if own:
            return over_seeds(each.value for each in one_per_seed(own).values() if each.value is not None)
        function = function_of(attention)
        equal = [each for each in wanted if function is not None and function_of(each.attention) == function]
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


def function_of(attention: str | None) -> str | None:
    """Names the function that a mapping computes, whatever its implementation; None without a mapping."""
    if attention is None:
        return None
    mapping: Mapping[str, object] = json.loads(attention)
    kept = {key: value for key, value in mapping.items() if key not in _NO_FUNCTION and value is not None}
    return json.dumps(kept, sort_keys=True)
