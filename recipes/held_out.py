"""The data that a checkpoint is evaluated on: the very content that its training held out, or other data on request."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.quality.evaluated import HeldOutExamples, HeldOutText
from eval.quality.run_facts import identity_of, section
from eval.quality.run_rows import data_name
from recipes.receipts import Receipt, find_receipt
from zoo.checkpoints import LoadedCheckpoint
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import typed_path
from zoo.data import DERIVED_KEYS, DataIdentity, TokenCorpus, data_config_from_mapping, prepare
from zoo.data.examples import ExampleCorpus, ExamplesConfig, examples_config_from_mapping, prepare_examples
from zoo.data.synthetic import SYNTHETIC_TASKS, SyntheticTask, synthetic_task_from_mapping
from zoo.models.classification import classes_of

# Fields that say where texts are: files here, or a data set on the Hub.
_PLACES = ("path", "validation_path")
_ROWS = ("packing", "mask_documents", "pack")
# Digits of a digest that a label shows.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutData:
    """What a checkpoint is evaluated on.

    Attributes:
        corpus: Name of the corpus or task.
        others: What differs from what the training held out, each as a label shows it.
        identity: What it is, by its content.
        text: Held-out text or examples, or None for a synthetic task.
        task: The synthetic task, or None for text.
    """

    corpus: str
    identity: DataIdentity
    others: tuple[str, ...] = ()
    text: HeldOutText | HeldOutExamples | None = None
    task: SyntheticTask | None = None


def held_out_data(given: Mapping[str, Any], loaded: LoadedCheckpoint, *, trust_data: bool) -> HeldOutData:
    """Opens what to evaluate on.

    Args:
        given: Other data, or keys to change in the data of the training; empty for the latter as it is.
        loaded: The checkpoint.
        trust_data: Whether to open what a checkpoint names that was not trained by this user here.

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
    if mapping["corpus"] in SYNTHETIC_TASKS:
        task = _task(mapping, loaded)
        data = HeldOutData(corpus=task.name, identity=task.identity, task=task)
        fingerprint = task.fingerprint
    else:
        receipt = None if chosen else find_receipt(described)
        if not chosen and not trust_data and receipt is None:
            _require_no_place(saved, given, loaded)
        data, fingerprint = _text(mapping, given, loaded, receipt)
    return _compared(data, fingerprint, described, is_asked=bool(given), loaded=loaded)


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
) -> tuple[HeldOutData, str]:
    """Held-out text in the checkpoint's own tokens, and its fingerprint."""
    if loaded.tokenizer is None:
        raise UserError(
            f"data must be what the checkpoint was trained on; {loaded.folder} has no tokenizer to read text with"
        )
    examples = mapping["corpus"] == ExamplesConfig.corpus
    if examples and "corpus" not in given and mapping.get("chat_template") is not None:
        # A checkpoint names the template's text, and its tokenizer has it.
        given_one = given.get("chat_template")
        absolute = None if given_one is None else str(typed_path(given_one, what="data.chat_template").absolute())
        mapping = {**mapping, "chat_template": absolute}
    elif examples and mapping.get("chat_template") is not None:
        template = typed_path(mapping["chat_template"], what="data.chat_template")
        mapping = {**mapping, "chat_template": str(template.absolute())}
    config = examples_config_from_mapping(mapping) if examples else data_config_from_mapping(mapping)
    if not examples and _classifies(loaded.model):
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
        corpus: TokenCorpus | ExampleCorpus
        text: HeldOutText | HeldOutExamples
        if isinstance(config, ExamplesConfig):
            corpus = prepare_examples(config, loaded.tokenizer)
            text = _examples(config, corpus, loaded.model)
        else:
            corpus = prepare(config, loaded.tokenizer)
            text = HeldOutText(split=corpus.validation, packing=config.packing, mask_documents=config.mask_documents)
    name = data_name(mapping)
    return HeldOutData(corpus=name, identity=corpus.identity, text=text), corpus.fingerprint


def _classifies(model: Any) -> bool:
    return not model.config.causal and bool(model.config.classifies)


def _examples(config: ExamplesConfig, corpus: ExampleCorpus, model: Any) -> HeldOutExamples:
    """Held-out examples, which must be texts with labels for a classifier, and for no other model."""
    classifies = _classifies(model)
    if not classifies and not model.config.causal:
        raise UserError("data must be running text for an encoder that guesses tokens, as data=text; got examples")
    if classifies != bool(corpus.labels):
        kind = (
            "texts with labels for a classifier"
            if classifies
            else "texts without labels (data.format=text leaves them out)"
        )
        raise UserError(f"data must be {kind}; got others")
    labels = (
        model.config.labels or tuple(str(number) for number in range(model.config.num_classes)) if classifies else ()
    )
    classes = classes_of(labels, corpus.labels)
    return HeldOutExamples(split=corpus.validation, tokenizer=corpus.tokenizer, pack=config.pack, classes=classes)


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


def _compared(
    data: HeldOutData, fingerprint: str, described: Mapping[str, Any], *, is_asked: bool, loaded: LoadedCheckpoint
) -> HeldOutData:
    """The data with what differs from what the training held out; refused if that was not asked for.

    Checkpoints from before data had an identity are compared by their fingerprint.
    """
    trained = identity_of(loaded.config)
    known = described.get("fingerprint") if trained is None else trained.validation
    found = fingerprint if trained is None else data.identity.validation
    same = known == found if known is not None else data.task is not None and not is_asked
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
    if data.text is not None:
        rows = {key: getattr(data.text, key) for key in _ROWS if hasattr(data.text, key)}
        others += [f"{key}={value}" for key, value in rows.items() if described.get(key, value) != value]
    return dataclasses.replace(data, others=tuple(others))
