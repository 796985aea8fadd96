"""Rows of quality: what names them, and what a training run tells of itself, read from its folder and checkpoints.

A run tells how it was made, how long it took, and how its validation values went; nothing is computed again.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from eval.quality import Score
from eval.rows import Machine, Quality, Row, current_machine, machine_of
from eval.rows.schema import Budget
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import attention_json, expand, series_name
from zoo.checkpoints import identity_of, section
from zoo.checkpoints.save import TRAINING_STATE
from zoo.config import UserError, require
from zoo.config.errors import shortened
from zoo.config.files import read_json_mapping, read_yaml_mapping
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.models.config import FAMILIES
from zoo.training import RunFolder, TrainingState, read_metrics

# What is found, as against what is asked: it does not name a row.
_FOUND = {
    *("value", "standard_error", "count", "surgery", "implementation", "train_seconds", "tokens_per_second"),
    *("peak_bytes", "num_parameters", "curve"),
}
# How a training is watched, which changes nothing of what it reaches.
_WATCHING = {
    *("log_every", "eval_every", "checkpoint_every", "keep_checkpoints"),
    *("sample_prompt", "sample_tokens", "loggers", "compile"),
}
# What training reports of its evaluations, the most telling first. Tokens of synthetic tasks stand for no bytes.
_VALIDATION_METRICS = ("val_bits_per_byte", "val_accuracy", "val_loss")


def quality_identity(quality: Quality, *, evaluated: str = "") -> str:
    """Names what was asked: equal models, tasks and settings, equal name, whatever was found.

    Args:
        quality: What the row holds.
        evaluated: Digest of weights and data, where two of the same description may differ in them.
    """
    asked = quality.model_dump(exclude=_FOUND)
    # By its first name, so that records of earlier versions are named alike.
    asked["regime"] = asked.pop("budget")
    return hashlib.sha256(json.dumps([asked, evaluated], sort_keys=True).encode()).hexdigest()[:16]


def relabelled(row: Row, **fields: str) -> Row:
    """A row of quality as part of a comparison, with other values of these fields; any other row as it is."""
    if row.quality is None:
        return row
    quality = row.quality.model_copy(update=fields)
    return row.model_copy(update={"quality": quality, "identity": quality_identity(quality)})


def quality_row(
    whose: Mapping[str, Any], task: str, score: Score, *, run_dir: Path | None = None, evaluated: str = ""
) -> Row:
    """The row of a figure, or of one that was skipped for a reason.

    Args:
        whose: Whose figure it is, and facts of the training: fields of `Quality`.
        task: Its name.
        score: The figure.
        run_dir: The finished run that found it, on its machine and at its end; None for here and now.
        evaluated: As for `quality_identity`.

    Raises:
        UserError: If a row cannot hold what a run told.
    """
    figure = {name: value for name, value in vars(score).items() if name != "skipped"}
    try:
        quality = Quality.model_validate({**whose, **figure, "task": task})
    except ValidationError as error:
        first = error.errors()[0]
        file = "metrics.jsonl" if first["loc"][0] == "curve" else "result.json"
        field, value = ".".join(map(str, first["loc"])), shortened(first["input"])
        told = f"run: {file} must hold values of a training; {field}: {first['msg']}, got {value}"
        raise UserError(told) from None
    found_at = datetime.datetime.now(datetime.UTC) if run_dir is None else RunFolder(run_dir).finished_at()
    return Row(
        kind="quality",
        identity=quality_identity(quality, evaluated=evaluated),
        status="ok" if score.skipped is None else "skipped",
        reason=score.skipped,
        recorded_at=found_at.isoformat(timespec="seconds"),
        machine=current_machine() if run_dir is None else _machine_of_run(run_dir),
        quality=quality,
    )


def _machine_of_run(run_dir: Path) -> Machine:
    """The machine that a run was made on; this one if it does not say."""
    path = run_dir / "environment.json"
    try:
        facts = read_json_mapping(path, what="run")
    except UserError:
        return current_machine()
    try:
        return machine_of(facts)
    except (KeyError, TypeError, ValidationError):
        raise UserError(f"run: {path} must tell of a machine, as train.py wrote it") from None


def settings_of(config: Mapping[str, Any], *, attention: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint's configuration says of the training: its content and, unless keys miss, `settings`.

    Args:
        config: What `train.py` saves with a checkpoint; of one that was not trained by it, or long ago, keys may miss.
        attention: The one that was trained, where another one is evaluated.
    """
    identity = identity_of(config)
    content = {"trained_on": identity and identity.train, "measured_on": identity and identity.validation}
    if not {"model", "optimizer", "training"} <= config.keys():
        return content
    data = section(config, "data")
    settings = {
        "model": {key: value for key, value in section(config, "model").items() if key != "attention"},
        "attention": attention,
        "rows": {key: data[key] for key in ("packing", "mask_documents") if key in data},
        "tokenizer": data.get("tokenizer"),
        "optimizer": section(config, "optimizer"),
        "training": {key: value for key, value in section(config, "training").items() if key not in _WATCHING},
        "dtype": config.get("dtype"),
    }
    return {**content, "settings": json.dumps(settings, sort_keys=True)}


def facts_of_checkpoint(folder: Path, training_state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of the run that a checkpoint was saved by, up to that checkpoint, as fields of `Quality`.

    All that the checkpoint itself knows, by the state that was saved with it, and what its run's folder adds if it is
    still there.
    """
    run = RunFolder.of_checkpoint(folder)
    facts = {} if run is None else _facts_of_run(run)
    if training_state is None:
        return facts
    state = TrainingState.parse(training_state, path=f"checkpoint: {folder / TRAINING_STATE}")
    if facts.get("steps") != state.step:
        # An earlier checkpoint of a run that went on: what the run had reached later is not its.
        rows = [] if run is None else [row for row in read_metrics(run.metrics) if row["step"] <= state.step]
        facts |= {"peak_bytes": None, **_course(rows)}
    speed = state.timed_tokens / state.timed_seconds if state.timed_seconds else None
    return {**facts, "steps": state.step, "tokens": state.tokens, "tokens_per_second": speed}


def fields_of_run(run_dir: Path) -> dict[str, Any]:
    """What a finished run and its checkpoint tell: facts, settings and content, as fields of `Quality`."""
    run = RunFolder(run_dir)
    return {**_facts_of_run(run), **settings_of(run.saved_config())}


def _facts_of_run(run: RunFolder) -> dict[str, Any]:
    """None of a folder without a result."""
    result = run.result()
    if result is None:
        return {}
    told = ("model", "implementation", "steps", "tokens", "tokens_per_second", "num_parameters")
    facts = {name: result.get(name) for name in told}
    return {**facts, "peak_bytes": result.get("peak_memory_bytes"), **_course(read_metrics(run.metrics))}


def _best_metric(values: Mapping[str, Any]) -> str | None:
    """The most telling validation value that there is."""
    return next((name for name in _VALIDATION_METRICS if values.get(name) is not None), None)


def _course(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How a training went by the rows of its metrics: `train_seconds`, and the `curve` of a validation value."""
    # Steps, and the tokens and the seconds of training up to them, from 0 on.
    steps, tokens, seconds = [0], [0], [0.0]
    for row in rows:
        if row.get("tokens_per_second") and row.get("tokens") is not None:
            seconds.append(seconds[-1] + (row["tokens"] - tokens[-1]) / row["tokens_per_second"])
            steps.append(row["step"])
            tokens.append(row["tokens"])
    metric = _best_metric({key: value for row in rows for key, value in row.items() if value is not None})
    curve = [
        {
            "tokens": round(float(np.interp(row["step"], steps, tokens))),
            "seconds": float(np.interp(row["step"], steps, seconds)),
            "value": row[metric],
        }
        for row in rows
        if metric is not None and row.get(metric) is not None
    ]
    return {"train_seconds": float(seconds[-1]) if len(steps) > 1 else None, "curve": curve}


def validation_row(run_dir: Path, whose: Mapping[str, Any], family: object) -> Row:
    """The row of what a finished run of a model's family found last in its own held-out data.

    Raises:
        UserError: If the run reported no validation value.
    """
    result = RunFolder(run_dir).result() or {}
    metric = _best_metric(result)
    if metric is None:
        raise UserError(f"run_dir must hold a run with a validation value; {str(run_dir)!r} has none")
    text_task = "language" if FAMILIES[str(family)].causal else "masked"
    task = whose["data"] if whose["data"] in SYNTHETIC_TASKS else text_task
    return quality_row(whose, task, Score(metric=metric, value=result[metric]), run_dir=run_dir)


def row_of_training(run_dir: Path, *, budget: Budget) -> Row:
    """The row of a finished training: the last validation value, its curve, and what the training took.

    It is of the machine that the run was made on and of the time when it was finished. The budget is what was held
    equal between it and the runs that it is compared with.

    Raises:
        UserError: If the folder holds no finished run, or the run reported no validation value.
    """
    result, path = RunFolder(run_dir).result(), run_dir / "config.yaml"
    if result is None or not path.is_file():
        raise UserError(f"run_dir must be the folder of a finished training run; got {str(run_dir)!r}")
    model = result.get("model")
    require(isinstance(model, str), f"run: {run_dir / 'result.json'}: model", "be a text", model)
    config, where = read_yaml_mapping(path, what="run"), f"run: {path}: "
    for name in ("attention", "data", "model"):
        require(isinstance(config.get(name), dict), f"{where}{name}", "be a mapping", config.get(name))
    corpus, family, seed = config["data"].get("corpus"), config["model"].get("family"), config.get("seed")
    require(isinstance(corpus, str), f"{where}data.corpus", "be a text", corpus)
    require(family in list(FAMILIES), f"{where}model.family", "be known", family, allowed=FAMILIES)
    require(type(seed) is int, f"{where}seed", "be a whole number", seed)
    attention = variant_from_mapping(expand(config["attention"]))
    whose = {
        **fields_of_run(run_dir),
        "variant": series_name(attention),
        "attention": attention_json(attention),
        "data": corpus,
        "budget": budget,
        "seed": seed,
    }
    return validation_row(run_dir, whose, family)
