"""What a training run tells of itself: how it was made, how long it took, and how its validation values went.

Read from the run's folder and its checkpoints; nothing is computed again.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from eval.rows import CurvePoint
from zoo.checkpoints.save import TRAINING_STATE
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import read_json_mapping, read_yaml_mapping
from zoo.data import DataIdentity
from zoo.data.identity import data_identity_from_mapping
from zoo.training import TrainingState, read_metrics
from zoo.training.run_folder import RunFolder

# How a training is watched, which changes nothing of what it reaches.
_WATCHING = frozenset(
    {
        *("log_every", "eval_every", "checkpoint_every", "keep_checkpoints"),
        *("sample_prompt", "sample_tokens", "loggers", "compile"),
    }
)
# What training reports of its evaluations, the most telling first. Tokens of synthetic tasks stand for no bytes.
VALIDATION_METRICS = ("val_bits_per_byte", "val_accuracy", "val_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts of a run up to one of its steps; None where they are not known.

    Attributes:
        model: Name of the model's YAML.
        implementation: What computed the attention of a training step, of which `auto` tells nothing.
        steps: Optimizer steps.
        tokens: Read, padding not counted.
        train_seconds: Time of the steps: no evaluation, no saving.
        tokens_per_second: Of whole steps but the first.
        peak_bytes: Largest that MLX's allocator held.
        num_parameters: Of the model.
        curve: Validation values.
        trained_on: Names the content that was trained on.
        settings: How it was trained, as JSON: all that decides it but attention, data and seed.
    """

    model: str | None = None
    implementation: str | None = None
    steps: int | None = None
    tokens: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    num_parameters: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    trained_on: str | None = None
    settings: str | None = None


def with_settings(
    facts: RunFacts, config: Mapping[str, Any], *, attention: Mapping[str, Any] | None = None
) -> RunFacts:
    """The facts with what a checkpoint's configuration says of the training.

    Args:
        facts: Of the run.
        config: What `train.py` saves with a checkpoint; of one that was not trained by it, or long ago, keys may miss.
        attention: The one that was trained, where another one is evaluated.
    """
    identity = identity_of(config)
    facts = dataclasses.replace(facts, trained_on=None if identity is None else identity.train)
    if not {"model", "optimizer", "training"} <= config.keys():
        return facts
    model = {key: value for key, value in section(config, "model").items() if key != "attention"}
    data = section(config, "data")
    training = {key: value for key, value in section(config, "training").items() if key not in _WATCHING}
    settings = {
        "model": model,
        "attention": attention,
        "rows": {key: data[key] for key in ("packing", "mask_documents") if key in data},
        "tokenizer": data.get("tokenizer"),
        "optimizer": section(config, "optimizer"),
        "training": training,
        "dtype": config.get("dtype"),
    }
    return dataclasses.replace(facts, settings=json.dumps(settings, sort_keys=True))


def identity_of(config: Mapping[str, Any]) -> DataIdentity | None:
    """What a checkpoint was trained on; None if it does not say.

    Raises:
        UserError: If what it says is no identity.
    """
    data = section(config, "data")
    if data.get("identity") is None:
        return None
    return data_identity_from_mapping(section(data, "identity", path="run.data."), path="checkpoint: run.data.identity")


def section(config: Mapping[str, Any], name: str, *, path: str = "run.") -> Mapping[str, Any]:
    """A section of a checkpoint's configuration, which stands under a path; empty if there is none.

    Raises:
        UserError: If it is no mapping.
    """
    found = config.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise UserError(f"checkpoint: {path}{name} must be a mapping; got {shortened(found)}")
    return found or {}


def facts_of_run(folder: Path, *, metric: str | None = None) -> RunFacts:
    """Facts of a finished run.

    Args:
        folder: The run's.
        metric: Which validation value the curve is of; None for the best that training reported.

    Returns:
        The facts; all None for a folder without a result.
    """
    result = RunFolder(folder).result()
    if result is None:
        return RunFacts()
    rows = read_metrics(folder / "metrics.jsonl")
    clock = _clock(rows)
    return RunFacts(
        model=result.get("model"),
        implementation=result.get("implementation"),
        steps=result.get("steps"),
        tokens=result.get("tokens"),
        train_seconds=float(clock[2][-1]) if len(clock[0]) > 1 else None,
        tokens_per_second=result.get("tokens_per_second"),
        peak_bytes=result.get("peak_memory_bytes"),
        num_parameters=result.get("num_parameters"),
        curve=_curve(rows, clock, metric or best_metric(result)),
    )


def facts_of_checkpoint(folder: Path, training_state: Mapping[str, Any] | None) -> RunFacts:
    """Facts of the run that a checkpoint was saved by, up to that checkpoint.

    Args:
        folder: The checkpoint's.
        training_state: What was saved with it.

    Returns:
        All that the checkpoint itself knows, and what its run's folder adds if it is still there.
    """
    run = run_folder_of(folder)
    facts = RunFacts() if run is None else facts_of_run(run)
    if training_state is None:
        return facts
    state = TrainingState.parse(training_state, path=f"checkpoint: {folder / TRAINING_STATE}")
    step, timed = state.step, state.timed_seconds
    own: dict[str, Any] = {
        "steps": step,
        "tokens": state.tokens,
        "tokens_per_second": state.timed_tokens / timed if timed else None,
    }
    if facts.steps == step:
        return dataclasses.replace(facts, **own)
    # An earlier checkpoint of a run that went on: what the run had reached later is not its.
    rows = [] if run is None else [row for row in read_metrics(run / "metrics.jsonl") if row["step"] <= step]
    clock = _clock(rows)
    return RunFacts(
        model=facts.model,
        implementation=facts.implementation,
        train_seconds=float(clock[2][-1]) if len(clock[0]) > 1 else None,
        num_parameters=facts.num_parameters,
        curve=_curve(rows, clock, best_metric({key: value for row in rows for key, value in row.items()})),
        **own,
    )


def run_folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that keeps a checkpoint, or None if the checkpoint stands by itself."""
    run = checkpoint.resolve().parent.parent
    return run if RunFolder(run).checkpoints == checkpoint.resolve().parent and RunFolder(run).holds_run else None


def best_metric(values: Mapping[str, Any]) -> str | None:
    """The most telling validation value that there is."""
    found = [name for name in VALIDATION_METRICS if values.get(name) is not None]
    return found[0] if found else None


def run_config(folder: Path) -> dict[str, Any] | None:
    """The whole configuration of a run; None if that cannot be read."""
    try:
        return read_yaml_mapping(folder / "config.yaml", what="run")
    except UserError:
        return None


def environment(folder: Path) -> dict[str, Any] | None:
    """Where a run took place, as `zoo.runtime.versions.describe` told it; None if that cannot be read."""
    try:
        return read_json_mapping(folder / "environment.json", what="run")
    except UserError:
        return None


def _clock(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and the tokens and the seconds of training up to them, from 0 on."""
    steps, tokens, seconds = [0], [0], [0.0]
    for row in rows:
        if row.get("tokens_per_second") and row.get("tokens") is not None:
            seconds.append(seconds[-1] + (row["tokens"] - tokens[-1]) / row["tokens_per_second"])
            steps.append(row["step"])
            tokens.append(row["tokens"])
    return np.array(steps), np.array(tokens), np.array(seconds)


def _curve(
    rows: Sequence[Mapping[str, Any]], clock: tuple[np.ndarray, np.ndarray, np.ndarray], metric: str | None
) -> tuple[CurvePoint, ...]:
    steps, tokens, seconds = clock
    try:
        return tuple(
            CurvePoint(
                tokens=round(float(np.interp(row["step"], steps, tokens))),
                seconds=float(np.interp(row["step"], steps, seconds)),
                value=row[metric],
            )
            for row in rows
            if metric is not None and row.get(metric) is not None
        )
    except ValidationError as error:
        raise unsound("metrics.jsonl", error) from None


def unsound(file: str, error: ValidationError) -> UserError:
    """What to say of a run's file whose values no record can hold."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return UserError(
        f"run: {file} must hold values of a training; {field}: {first['msg']}, got {shortened(first['input'])}"
    )
