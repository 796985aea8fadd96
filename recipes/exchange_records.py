"""The records of a comparison of a checkpoint's variants: evaluations under its names, fine-tunings, and refusals."""

import dataclasses
import json

from eval.quality.run_facts import RunFacts, best_metric, facts_of_run, identity_of, section, with_settings
from eval.quality.run_rows import Origin, machine_of_run, quality_identity, quality_row
from eval.quality.score import Score
from eval.rows import Quality, Row, current_machine
from eval.rows.schema import Regime
from eval.suites.series import series_named
from recipes.comparison_run import ComparisonRun
from zoo.checkpoints import History
from zoo.checkpoints.save import CONFIG
from zoo.config import UserError
from zoo.config.files import read_json_mapping
from zoo.models.config import FAMILIES
from zoo.training import RunFolder


def renamed(row: Row, model: str, *, variant: str | None, regime: Regime = "checkpoint") -> Row:
    """A record of an evaluation as part of this comparison: whose it is, and what was held equal."""
    if row.quality is None:
        return row
    named = {"model": model, "regime": regime}
    if variant is not None:
        named |= {"variant": variant, "attention": series_named(variant).attention}
    quality = row.quality.model_copy(update=named)
    return row.model_copy(update={"quality": quality, "identity": quality_identity(quality)})


def row_of_run(cell: ComparisonRun, model: str) -> Row:
    """What a fine-tuning itself found last, its curve, and what it took."""
    folder = RunFolder(cell.folder)
    result = folder.result()
    metric = None if result is None else best_metric(result)
    if result is None or metric is None:
        raise UserError(f"run_dir must hold finished runs with a validation value; {str(cell.folder)!r} is none")
    task = "language" if FAMILIES[str(result.get("model"))].causal else "masked"
    score = Score(metric=metric, value=result[metric])
    origin = dataclasses.replace(_origin(cell, model, metric), regime=cell.regime)
    return _row(cell, origin.quality(task, score))


def surgery_of_run(cell: ComparisonRun, model: str) -> Row:
    """What exchanging the attention did, as the fine-tuning that followed reported it; the same for every seed."""
    surgery = cell.result()["surgery"]
    damage = surgery.get("damage") or {}
    score = Score(metric="kl_nats_per_token", value=damage.get("kl_nats_per_token"), surgery=json.dumps(surgery))
    origin = dataclasses.replace(_origin(cell, model, None), seed=0, facts=RunFacts())
    return _row(cell, origin.quality("surgery", score))


def _origin(cell: ComparisonRun, model: str, metric: str | None) -> Origin:
    newest = History(RunFolder(cell.folder).checkpoints).newest()
    if newest is None:
        raise UserError(f"run_dir must hold finished runs with a checkpoint; {str(cell.folder)!r} has none")
    saved = section(read_json_mapping(newest / CONFIG, what="checkpoint"), "run")
    identity = identity_of(saved)
    return Origin(
        variant=cell.variant,
        attention=series_named(cell.variant).attention,
        model=model,
        data=str(section(saved, "data").get("corpus", "examples")),
        regime="checkpoint",
        seed=cell.seed,
        facts=with_settings(facts_of_run(cell.folder, metric=metric), saved),
        measured_on=None if identity is None else identity.validation,
    )


def _row(cell: ComparisonRun, quality: Quality) -> Row:
    return quality_row(quality, machine=machine_of_run(cell.folder), found_at=RunFolder(cell.folder).finished_at())


def refusal(variant: str, reason: str, *, model: str, data: str, measured_on: str) -> Row:
    """That a variant cannot take the place of the checkpoint's attention, and why."""
    origin = Origin(
        variant=variant,
        attention=series_named(variant).attention,
        model=model,
        data=data,
        regime="checkpoint",
        seed=0,
        facts=RunFacts(),
        measured_on=measured_on,
    )
    quality = origin.quality("surgery", Score(metric="kl_nats_per_token"))
    return quality_row(quality, machine=current_machine(), skipped=reason)
