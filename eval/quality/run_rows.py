"""Rows of quality: what names them, and those that a finished training run gives without another evaluation."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.quality.run_facts import (
    RunFacts,
    best_metric,
    environment,
    facts_of_run,
    identity_of,
    run_config,
    section,
    unsound,
    with_settings,
)
from eval.quality.score import Score
from eval.quality.series import attention_json, series_name
from eval.rows import Machine, Quality, Row, current_machine, machine_of
from eval.rows.schema import Regime
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import expand
from zoo.checkpoints import History
from zoo.checkpoints.save import CONFIG
from zoo.config import UserError, from_mapping, require
from zoo.config.files import read_json_mapping
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.models.config import FAMILIES
from zoo.training.run_folder import RunFolder

# What is found, as against what is asked: it does not name a row.
_FOUND = {
    "value",
    "standard_error",
    "count",
    "implementation",
    "train_seconds",
    "tokens_per_second",
    "peak_bytes",
    "num_parameters",
    "curve",
    "surgery",
}


def quality_identity(quality: Quality, *, evaluated: str = "") -> str:
    """Names what was asked: equal models, tasks and settings, equal name, whatever was found.

    Args:
        quality: What the row holds.
        evaluated: Digest of weights and data, where two of the same description may differ in them.
    """
    asked = quality.model_dump(exclude=_FOUND)
    text = json.dumps([asked, evaluated], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Whose figures they are.

    Attributes:
        variant: As `series_name` calls it.
        attention: The whole mapping as JSON.
        model: Name of the model's YAML, or its family where that is not known.
        data: Name of the data.
        regime: How the model was trained in comparison with others.
        seed: Of the training.
        facts: Of the training.
        measured_on: Names the content that is measured on; None if it is not known.
    """

    variant: str
    attention: str
    model: str
    data: str
    regime: Regime
    seed: int
    facts: RunFacts
    measured_on: str | None = None

    def quality(self, task: str, score: Score) -> Quality:
        """A figure with all that belongs to it."""
        facts = {field.name: getattr(self.facts, field.name) for field in dataclasses.fields(RunFacts)}
        figure = {field.name: getattr(score, field.name) for field in dataclasses.fields(Score)}
        del figure["skipped"], facts["model"]
        try:
            return Quality(
                task=task,
                variant=self.variant,
                attention=self.attention,
                model=self.model,
                data=self.data,
                regime=self.regime,
                seed=self.seed,
                measured_on=self.measured_on,
                **{**facts, "curve": list(self.facts.curve)},
                **figure,
            )
        except ValidationError as error:
            raise unsound("result.json", error) from None


def quality_row(
    quality: Quality,
    *,
    machine: Machine,
    skipped: str | None = None,
    evaluated: str = "",
    found_at: datetime.datetime | None = None,
) -> Row:
    """The row of a figure, found now if not at another time, or of one that was skipped for a reason."""
    found_at = found_at or datetime.datetime.now(datetime.UTC)
    return Row(
        kind="quality",
        identity=quality_identity(quality, evaluated=evaluated),
        status="ok" if skipped is None else "skipped",
        reason=skipped,
        recorded_at=found_at.isoformat(timespec="seconds"),
        machine=machine,
        quality=quality,
    )


def rows_of_run(run_dir: Path, *, regime: Regime) -> list[Row]:
    """The row of a finished training run: the last validation value, its curve, and what the training took.

    Args:
        run_dir: The run's folder.
        regime: What was held equal between it and the runs that it is compared with.

    Returns:
        One row, of the machine that the run was made on and of the time when it was finished.

    Raises:
        UserError: If the folder holds no finished run, or the run reported no validation value.
    """
    folder = RunFolder(run_dir)
    result, config = folder.result(), run_config(run_dir)
    if result is None or config is None:
        raise UserError(f"run_dir must be the folder of a finished training run; got {str(run_dir)!r}")
    model = result.get("model")
    require(isinstance(model, str), f"run: {run_dir / 'result.json'}: model", "be a text", model)
    metric = best_metric(result)
    if metric is None:
        raise UserError(f"run_dir must hold a run with a validation value; {str(run_dir)!r} has none")
    # Its checkpoint says what it was trained on, and as what.
    newest = History(folder.checkpoints).newest()
    saved = {} if newest is None else section(read_json_mapping(newest / CONFIG, what="checkpoint"), "run")
    facts = with_settings(facts_of_run(run_dir, metric=metric), saved)
    identity = identity_of(saved)
    settings = _settings(config, where=f"run: {run_dir / 'config.yaml'}")
    attention = variant_from_mapping(expand(settings.attention))
    data = data_name(settings.data)
    origin = Origin(
        variant=series_name(attention),
        attention=attention_json(attention),
        model=str(model),
        data=data,
        regime=regime,
        seed=settings.seed,
        facts=facts,
        measured_on=None if identity is None else identity.validation,
    )
    text_task = "language" if FAMILIES[settings.model["family"]].causal else "masked"
    task = data if data in SYNTHETIC_TASKS else text_task
    quality = origin.quality(task, Score(metric=metric, value=result[metric]))
    return [quality_row(quality, machine=machine_of_run(run_dir), found_at=folder.finished_at())]


def machine_of_run(run_dir: Path) -> Machine:
    """The machine that a run was made on; this one if it does not say.

    Raises:
        UserError: If what it says is of no machine.
    """
    facts = environment(run_dir)
    try:
        return current_machine() if facts is None else machine_of(facts)
    except (KeyError, TypeError, ValidationError):
        raise UserError(f"run: {run_dir / 'environment.json'} must tell of a machine, as train.py wrote it") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What a row takes from a run's `config.yaml`."""

    attention: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    seed: int

    def __post_init__(self) -> None:
        require(isinstance(self.data.get("corpus"), str), "data.corpus", "be a text", self.data.get("corpus"))
        family = self.model.get("family")
        require(family in list(FAMILIES), "model.family", "be known", family, allowed=FAMILIES)


def _settings(config: Mapping[str, Any], *, where: str) -> _Settings:
    names = [field.name for field in dataclasses.fields(_Settings)]
    return from_mapping(_Settings, {name: config[name] for name in names if name in config}, path=where)


def data_name(mapping: Mapping[str, Any]) -> str:
    """Name of the data that a configuration describes: the YAML's in `configs/data/`."""
    return str(mapping["corpus"])
