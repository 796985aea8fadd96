"""Rules about trained models: the speed of fine-tuning, quality, and whether their attention was exchanged."""

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Literal

from eval.claims.claim import Outcome, Rule, in_range, known, point, same_figure, same_side, with_interval
from eval.claims.measurements import Measurements, MissingRowsError, Series, Where
from eval.rows import Row
from eval.statistics import Contrast, paired_difference, paired_ratio
from zoo.attention.catalog import variant_mapping
from zoo.attention.function import function_of

SCALED = (
    "Settled by the training step (forward, backward, update) of a small Llama-shaped model, scaled to fit this "
    "machine: not by fine-tuning, and not by a model of the named size."
)
FINETUNED = (
    "Settled by fine-tuning a real checkpoint of the Llama family with its own attention in both implementations, "
    "paired by seed; its size is not the named one."
)
# A logit of an exact exchange may move by so much, in float32.
EXACT = 1e-4
# How `compare.py` names models that were fine-tuned on tokens alone.
_FINETUNED_MODEL = ", finetune"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """What trained, a ratio of times, and the rows it comes from."""

    where: str
    ratio: Contrast
    identities: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Rule):
    """Training with one attention over training with another: fine-tunings where there are any, else training steps.

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

    def outcome(self, measurements: Measurements) -> Outcome:
        compared, how = self._finetunings(measurements), FINETUNED
        if not compared:
            compared, how = self._steps(measurements), SCALED
        last = compared[-1].ratio
        if self.kind == "figure":
            held = same_figure(last, self.figures[0])
            rule = f"Published {self.figures[0]:.2f}; judged by the last."
        else:
            least, most = self.figures
            held = all(
                same_side(each.ratio, above=True) and in_range(each.ratio, least, most, 0.0) for each in compared
            )
            rule = (
                f"Every interval has to reach into {self.figures[0]} to {self.figures[1]} times the tokens per second."
            )
        return Outcome(
            held=held,
            ours=f"{self.what}: {'; '.join(f'{each.where}: {with_interval(each.ratio)}x' for each in compared)}",
            figure=last,
            reason=f"{how} {rule}",
            evidence=tuple(identity for each in compared for identity in each.identities),
        )

    def _steps(self, measurements: Measurements) -> list[_Compared]:
        pairs = [
            pair
            for pair in measurements.pairs(self.above[1], self.below[1], self.where)
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

    def _finetunings(self, measurements: Measurements) -> list[_Compared]:
        found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
        for row in measurements.rows:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality(Rule):
    """Whether a variant is worse than another at equal tokens, in bits per byte or in accuracy."""

    variant: str
    baseline: str

    def outcome(self, measurements: Measurements) -> Outcome:
        losses = self._differences(measurements, "bits_per_byte")
        if not losses:
            names = f"{self.variant} and {self.baseline}"
            raise MissingRowsError(f"no bits per byte of {names} at equal tokens, of two seeds at least")
        recall = self._differences(measurements, "accuracy")
        worst = max((found for found, _ in losses.values()), key=lambda found: found.value)
        costs = [known(found)[0] > 0 for found, _ in losses.values()]
        costs += [known(found)[1] < 0 for found, _ in recall.values()]
        texts = [f"{name}: {with_interval(found, digits=3)}" for name, (found, _) in (*losses.items(), *recall.items())]
        return Outcome(
            held=any(costs),
            ours=f"{self.variant} minus {self.baseline}: {'; '.join(texts)}",
            figure=worst,
            reason="At equal tokens, differences paired by seed: more bits per byte or less accuracy is worse. It may "
            "cost quality: one of the intervals has to lie wholly on the worse side of 0.",
            evidence=tuple(row.identity for _, rows in (*losses.values(), *recall.values()) for row in rows),
        )

    def _differences(self, measurements: Measurements, metric: str) -> dict[str, tuple[Contrast, tuple[Row, ...]]]:
        """Mean difference of the seeds that both had, for every task and setting that both were trained on."""
        found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
        # What an evaluation says counts before a training's own last value of the same seed.
        for row in sorted(measurements.rows, key=lambda row: row.quality is None or not row.quality.is_of_training):
            quality = row.quality
            if quality is None or quality.value is None or quality.budget != "equal_tokens":
                continue
            # Of the whole task only: where along an axis the difference lies is another table.
            if quality.quantity == metric and quality.is_overall and quality.variant in (self.variant, self.baseline):
                steps = "" if quality.steps is None else f", {quality.steps} steps"
                name: object = f"{metric} of {quality.task} ({quality.model}, {quality.data}{steps})"
                setting = (name, quality.trained_on, quality.measured_on, quality.terms)
                found.setdefault(setting, {}).setdefault(quality.variant, {})[quality.seed] = row
        named, differences = collections.Counter(name for name, *_ in found), {}
        for (name, *rest), rows in found.items():
            ours, theirs = rows.get(self.variant, {}), rows.get(self.baseline, {})
            seeds = sorted(set(ours) & set(theirs))
            if len(seeds) > 1:
                compared = [[each[seed] for seed in seeds] for each in (ours, theirs)]
                # Settings of one name are told apart by what names all that differs.
                which = hashlib.sha256(repr(tuple(rest)).encode()).hexdigest()[:8]
                key = str(name) if named[name] == 1 else f"{name}, {which}"
                differences[key] = (paired_difference(*map(_values, compared)), tuple(itertools.chain(*compared)))
        return differences


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange(Rule):
    """Whether every layer of trained models was exchanged for another way to compute the same function.

    Attributes:
        variant: Whose function it is.
    """

    variant: str

    def outcome(self, measurements: Measurements) -> Outcome:
        wanted = function_of(variant_mapping(self.variant))
        exact = [
            (row, row.quality, json.loads(row.quality.surgery))
            for row in measurements.rows
            if row.quality is not None
            and row.quality.surgery is not None
            and row.quality.attention is not None
            and function_of(json.loads(row.quality.attention)) == wanted
        ]
        if not exact:
            raise MissingRowsError("no row is of a model whose attention was exchanged")
        differences = [surgery["damage"]["largest_logit_difference"] for _, _, surgery in exact]
        whole = all(len(surgery["layers"]) == surgery["num_layers"] for _, _, surgery in exact)
        # Of one model after one prompt, which is taken from the data.
        texts: dict[tuple[str, str], set[str | None]] = {}
        for _, quality, surgery in exact:
            asked = (quality.model, quality.data)
            texts.setdefault(asked, set()).add((surgery.get("greedy") or {}).get("text"))
        same = all(len(found) == 1 for found in texts.values())
        names = ", ".join(dict.fromkeys(quality.variant for _, quality, _ in exact))
        models = ", ".join(dict.fromkeys(model for model, _ in texts))
        return Outcome(
            held=whole and same and max(differences) <= EXACT,
            ours=f"{names} in {'every layer' if whole else 'some layers'} of {models}: largest logit difference "
            f"{max(differences):.1e}, greedy texts {'equal' if same else 'not equal'}",
            figure=point(max(differences)),
            reason="Exchanged in trained checkpoints, for other ways to compute the same function. Reproduced if every "
            f"layer was exchanged, no logit moved by more than {EXACT:.0e} and the greedy texts are equal.",
            evidence=tuple(row.identity for row, _, _ in exact),
        )


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


def _values(rows: Sequence[Row]) -> list[float]:
    return [row.quality.value for row in rows if row.quality is not None and row.quality.value is not None]
