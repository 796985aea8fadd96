"""From an encoder to a classifier of texts: its own head where that fits the labels, a fresh one otherwise."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import mlx.nn as nn

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.models.bert import Bert
from zoo.models.build import build_model
from zoo.models.config import BertConfig

# Tables of classes are written out, and every text's probabilities too.
_MOST_CLASSES = 100_000
# Parameters that belong to the labels, and are trained as they are beside adapters.
CLASSIFIER_HEAD = ("pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias")
Label = str | int


def classifier_for(model: Any, found: Sequence[Label]) -> tuple[Bert, tuple[int, ...]]:
    """A classifier with the encoder's modules, and the class that each label means in it.

    Args:
        model: An encoder, whole; not to be used any more.
        found: The labels that a data set has, each once: names, or numbers of classes from 0 on.

    Raises:
        UserError: If these are no labels to learn.
    """
    numbers = [each for each in found if isinstance(each, int)]
    names = [each for each in found if isinstance(each, str)]
    if numbers and names:
        example = f"{shortened(names[0])} and {numbers[0]}"
        raise UserError(f"data: labels must all be names or all be numbers from 0 on; got {example}")
    if len(found) < 2:
        raise UserError(f"data: labels must be two different ones at least; got {shortened(list(found))}")
    if numbers and not 0 <= min(numbers) <= max(numbers) < _MOST_CLASSES:
        wrong = next(each for each in numbers if not 0 <= each < _MOST_CLASSES)
        raise UserError(f"data: labels that are numbers must be from 0 to {_MOST_CLASSES - 1}; got {shortened(wrong)}")
    for name in ("pooler", "classifier"):
        if name in model and not isinstance(model[name], nn.Linear):
            raise UserError(f"checkpoint must have a {name} that can be trained; its weights are quantized")
    config: BertConfig = model.config
    own = config.labels
    if numbers:
        fits = max(numbers) < config.num_classes if own else max(numbers) + 1 == config.num_classes
        labels = tuple(str(each) for each in range(max(numbers) + 1))
    else:
        fits = own is not None and set(names) <= set(own)
        labels = tuple(sorted(names))
    fits = fits and config.classification_head
    labels = own if fits and own is not None else labels
    return as_classifier(model, labels, own_head=fits), classes_of(labels, found)


def classes_of(labels: Sequence[str], found: Sequence[Label]) -> tuple[int, ...]:
    """The class that each label of a data set means.

    Args:
        labels: A classifier's, by class.
        found: The data set's: names, or numbers of classes.

    Raises:
        UserError: If the classifier has no such class.
    """
    known: dict[Label, int] = {name: number for number, name in enumerate(labels)}
    known |= {number: number for number in range(len(labels))}
    for each in found:
        if each not in known:
            raise UserError(
                f"data: labels must be the classifier's; got {shortened(each)} (choices: {shortened(labels)})"
            )
    return tuple(known[each] for each in found)


def as_classifier(model: Any, labels: Sequence[str], *, own_head: bool = False) -> Bert:
    """A classifier of an encoder's modules.

    Args:
        model: An encoder, whole; not to be used any more.
        labels: Names of the classes.
        own_head: Whether the encoder's own head stays; a fresh one is random otherwise.
    """
    config: BertConfig = dataclasses.replace(
        model.config,
        masked_token_head=False,
        tie_word_embeddings=True,
        pooler=True,
        classification_head=True,
        num_classes=len(labels),
        labels=tuple(labels),
    )
    classifier = build_model(config)
    assert isinstance(classifier, Bert)
    for name in classifier:
        if name in model and (own_head or name != "classifier"):
            classifier[name] = model[name]
    classifier.train(model.training)
    return classifier


def with_head_of(classifier: Bert, encoder: Any) -> Bert:
    """The classifier that another encoder is with the same head, whose arrays both share.

    Args:
        classifier: Has the head.
        encoder: The same one but for its attention; not to be used any more.
    """
    other = as_classifier(encoder, classifier.config.labels or ())
    other.pooler, other.classifier = classifier.pooler, classifier.classifier
    return other
