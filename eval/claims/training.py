"""The rule about the speed of fine-tuning: by fine-tunings where there are any, else by training steps of a model."""

import dataclasses
from typing import Literal

from eval.claims.claim import MissingRowsError
from eval.claims.evidence import Evidence, Series, Where
from eval.claims.rule import Outcome, Rule, with_interval
from eval.claims.verdict import in_range, known, same_figure, same_side
from eval.rows import Row
from eval.statistics.ratios import RatioEstimate, paired_ratio

SCALED = (
    "Settled by the training step (forward, backward, update) of a small Llama-shaped model, scaled to fit this "
    "machine: not by fine-tuning, and not by a model of the named size."
)
FINETUNED = (
    "Settled by fine-tuning a real checkpoint of the Llama family with its own attention in both implementations, "
    "paired by seed; its size is not the named one."
)
# How `compare.py` names models that were fine-tuned on tokens alone.
_FINETUNED_MODEL = ", finetune"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """What trained, a ratio of times, and the rows it comes from."""

    where: str
    ratio: RatioEstimate
    identities: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Rule):
    """Training with one attention over training with another, of which what weighs most counts.

    Attributes:
        above: Variant and series whose time is above.
        below: Those whose time is below.
        where: The training steps.
        with_models: Words in the names of their models.
        what: Our figure, in words.
        kind: "figure", of the last and longest; or "range", of all.
        figures: The published one, or the ends.
    """

    above: tuple[str, Series]
    below: tuple[str, Series]
    where: Where
    with_models: str
    what: str
    kind: Literal["figure", "range"]
    figures: tuple[float, ...]

    def outcome(self, evidence: Evidence) -> Outcome:
        compared, how = self._finetunings(evidence), FINETUNED
        if not compared:
            compared, how = self._steps(evidence), SCALED
        ratio = compared[-1].ratio
        ends = [known(each.ratio.low, each.ratio.high) for each in compared]
        if self.kind == "figure":
            held = same_figure(*ends[-1], *self.figures)
            rule = f"Published {self.figures[0]:.2f}; judged by the last."
        else:
            held = all(
                same_side(*each, above=True) and in_range(*each, self.figures[0], self.figures[1], 0.0) for each in ends
            )
            rule = (
                f"Every interval has to reach into {self.figures[0]} to {self.figures[1]} times the tokens per second."
            )
        texts = (
            f"{each.where}: {with_interval(each.ratio.ratio, each.ratio.low, each.ratio.high)}x" for each in compared
        )
        return Outcome(
            held=held,
            ours=f"{self.what}: {'; '.join(texts)}",
            value=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
            reason=f"{how} {rule}",
            evidence=tuple(identity for each in compared for identity in each.identities),
        )

    def _steps(self, evidence: Evidence) -> list[_Compared]:
        pairs = [
            pair
            for pair in evidence.pairs(self.above[1], self.below[1], self.where)
            if self.with_models in (pair.cell.model or "")
        ]
        if not pairs:
            names = f"{self.above[1].label} and {self.below[1].label}"
            raise MissingRowsError(f"no training steps of a {self.with_models} model with {names} ({self.where})")
        pairs.sort(key=lambda pair: (pair.cell.length, pair.cell.batch_size))
        return [
            _Compared(
                where=f"{pair.cell.model}, B={pair.cell.batch_size}, L={pair.cell.length}",
                ratio=pair.ratio,
                identities=pair.identities,
            )
            for pair in pairs
        ]

    def _finetunings(self, evidence: Evidence) -> list[_Compared]:
        found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
        for row in evidence.rows:
            quality = row.quality
            if quality is None or quality.tokens_per_second is None or not quality.model.endswith(_FINETUNED_MODEL):
                continue
            if quality.variant in (self.above[0], self.below[0]):
                trained = (quality.model, quality.data, quality.steps, quality.settings)
                found.setdefault(trained, {}).setdefault(quality.variant, {})[quality.seed] = row
        compared = []
        for (model, _, steps, _), rows in found.items():
            above, below = rows.get(self.above[0], {}), rows.get(self.below[0], {})
            seeds = sorted(set(above) & set(below))
            if len(seeds) > 1:
                ratio = paired_ratio(*([_seconds(each[seed]) for seed in seeds] for each in (above, below)))
                computed = [_computed_by(rows[name][seeds[0]]) for name in sorted((self.above[0], self.below[0]))]
                where = f"{model} ({steps} steps, {len(seeds)} seeds, {' and '.join(computed)})"
                used = tuple(each[seed].identity for seed in seeds for each in (above, below))
                compared.append(_Compared(where=where, ratio=ratio, identities=used))
        return sorted(compared, key=lambda each: each.where)


def _computed_by(row: Row) -> str:
    """A variant, and its implementation where the row says it."""
    assert row.quality is not None
    implementation = row.quality.implementation
    return row.quality.variant + (f" by {implementation}" if implementation else "")


def _seconds(row: Row) -> float:
    """A token's."""
    assert row.quality is not None
    assert row.quality.tokens_per_second is not None
    return 1 / row.quality.tokens_per_second
