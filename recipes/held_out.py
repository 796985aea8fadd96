"""The data that a checkpoint is evaluated on: the very content that its training held out, or other data on request."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.receipts import Receipt, find_receipt
from zoo.checkpoints import LoadedCheckpoint, identity_of, section
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import typed_path
from zoo.data import (
    DERIVED_KEYS,
    Data,
    DataConfig,
    ExampleData,
    SyntheticTask,
    TextData,
    open_data,
    text_source_from_mapping,
)
from zoo.data.examples import ExamplesConfig
from zoo.data.synthetic import SYNTHETIC_TASKS, synthetic_task_from_mapping
from zoo.models.classification import classes_of

# Fields that say where texts are: files here, or a data set on the Hub.
_PLACES = ("path", "validation_path")
# Digits of a digest that a label shows.
_SHOWN = 8


def held_out_data(given: Mapping[str, Any], loaded: LoadedCheckpoint, *, trust_data: bool) -> tuple[Data, list[str]]:
    """Opens what to evaluate on.

    Args:
        given: Other data, or keys to change in the data of the training; empty for the latter as it is.
        loaded: The checkpoint.
        trust_data: Whether to open what a checkpoint names that was not trained by this user here.

    Returns:
        The data, and what differs from what the training held out, each as a label shows it.

    Raises:
        UserError: If the data are not chosen, not to be trusted or cannot be read; if they do not fit the checkpoint;
            or if nothing else was asked for and they are not what the training held out.
    """
    described = section(loaded.config, "data")
    saved = {key: value for key, value in described.items() if key not in DERIVED_KEYS}
    chosen = "corpus" in given
    if not saved and not chosen:
        raise UserError(
            f"data must be chosen, as in data=text data.path=FILE; {loaded.folder} does not say what it was trained on"
        )
    mapping = dict(given) if chosen else {**saved, **given}
    if not isinstance(mapping.get("corpus"), str):
        raise UserError(f"checkpoint: run.data.corpus must be a text; got {shortened(mapping.get('corpus'))}")
    data: Data
    if mapping["corpus"] in SYNTHETIC_TASKS:
        data = _task(mapping, loaded)
    else:
        receipt = None if chosen else find_receipt(described)
        if not chosen and not trust_data and receipt is None:
            _require_no_place(saved, given, loaded)
        data = _text(mapping, given, loaded, receipt)
    return data, _differences(data, described, is_asked=bool(given), loaded=loaded)


def _require_no_place(saved: Mapping[str, Any], given: Mapping[str, Any], loaded: LoadedCheckpoint) -> None:
    """Refuses to follow a stranger's checkpoint to files of this machine, or to the Hub."""
    named = {key: saved[key] for key in _PLACES if saved.get(key) is not None and key not in given}
    if named:
        what = ", ".join(f"data.{key} = {shortened(value)}" for key, value in named.items())
        raise UserError(
            f"trust_data must be true to open what a checkpoint names that was not trained here; {loaded.folder} names"
            f" {what} of corpus {shortened(saved['corpus'])} (data=text data.path=FILE evaluates on another text)"
        )


def _text(
    mapping: Mapping[str, Any], given: Mapping[str, Any], loaded: LoadedCheckpoint, receipt: Receipt | None
) -> TextData | ExampleData:
    """Text or examples in the checkpoint's own tokens."""
    if loaded.tokenizer is None:
        raise UserError(
            f"data must be what the checkpoint was trained on; {loaded.folder} has no tokenizer to read text with"
        )
    if mapping["corpus"] == ExamplesConfig.corpus:
        # A checkpoint names its template's text, and its tokenizer has it.
        template = given.get("chat_template")
        path = None if template is None else str(typed_path(template, what="data.chat_template").absolute())
        mapping = {**mapping, "chat_template": path}
    config = text_source_from_mapping(mapping)
    if isinstance(config, DataConfig) and _classifies(loaded.model):
        raise UserError(f"data must be texts with labels for a classifier, as data=examples; got {mapping['corpus']}")
    if config.cache_dir is not None:
        config = dataclasses.replace(
            config, cache_dir=str(typed_path(config.cache_dir, what="data.cache_dir").absolute())
        )
    elif receipt is not None:
        config = dataclasses.replace(config, cache_dir=receipt.cache_dir)
    # The training's own paths begin where it was started.
    moved = receipt is not None and not set(_PLACES) & given.keys() and Path(receipt.folder).is_dir()
    with contextlib.chdir(receipt.folder) if moved and receipt is not None else contextlib.nullcontext():
        data = open_data(config, loaded.tokenizer)
    return _fitting(data, loaded.model) if isinstance(data, ExampleData) else data


def _classifies(model: Any) -> bool:
    return not model.config.causal and bool(model.config.classifies)


def _fitting(data: ExampleData, model: Any) -> ExampleData:
    """Examples with the model's classes; they must be texts with labels for a classifier, and for no other model."""
    classifies = _classifies(model)
    if not classifies and not model.config.causal:
        raise UserError("data must be running text for an encoder that guesses tokens, as data=text; got examples")
    if classifies != bool(data.corpus.labels):
        kind = (
            "texts with labels for a classifier"
            if classifies
            else "texts without labels (data.format=text leaves them out)"
        )
        raise UserError(f"data must be {kind}; got others")
    labels = (
        model.config.labels or tuple(str(number) for number in range(model.config.num_classes)) if classifies else ()
    )
    return dataclasses.replace(data, classes=classes_of(labels, data.corpus.labels))


def _task(mapping: Mapping[str, Any], loaded: LoadedCheckpoint) -> SyntheticTask:
    """The synthetic task, which must be the one of the training: another one's tokens mean other things."""
    task = synthetic_task_from_mapping(mapping)
    trained_on = section(loaded.config, "data").get("corpus", "text" if loaded.tokenizer else task.name)
    if trained_on != task.name:
        raise UserError(f"data must be what the checkpoint was trained on, {trained_on}; got {task.name}")
    model: Any = loaded.model
    if task.vocab_size > model.config.vocab_size:
        raise UserError(f"data.vocab_size must be at most the model's {model.config.vocab_size}; got {task.vocab_size}")
    return task


def _differences(data: Data, described: Mapping[str, Any], *, is_asked: bool, loaded: LoadedCheckpoint) -> list[str]:
    """What differs from what the training held out; refused if that was not asked for.

    Checkpoints from before data had an identity are compared by their fingerprint.
    """
    trained = identity_of(loaded.config)
    known = described.get("fingerprint") if trained is None else trained.validation
    found = data.fingerprint if trained is None else data.identity.validation
    same = known == found if known is not None else isinstance(data, SyntheticTask) and not is_asked
    if known is None and not same and not is_asked:
        raise UserError(
            f"data must be chosen, as in data=text data.path=FILE; {loaded.folder} does not say which content it was"
            " trained with"
        )
    if not same and not is_asked:
        raise UserError(
            f"data must be the text that {loaded.folder} was trained with; what is there now is another one (bring back"
            " what it was, or choose the data yourself, as in data=text data.path=FILE, to evaluate on another text)"
        )
    others = [] if same else [f"other, {data.identity.validation[:_SHOWN]}"]
    rows = {} if isinstance(data, SyntheticTask) else data.row_settings
    return others + [f"{key}={value}" for key, value in rows.items() if described.get(key, value) != value]
