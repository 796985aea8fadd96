"""The keys that a script takes and the type of each, read from the dataclasses that its configuration becomes."""

import dataclasses
import functools
import importlib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from zoo.attention.registry import mechanisms
from zoo.data.corpora import CORPORA
from zoo.data.examples import ExamplesConfig
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.data.tokenizers import KINDS
from zoo.models.config import FAMILIES
from zoo.training import TrainingConfig
from zoo.training.optimizers import OPTIMIZERS

# What a section, a plain mapping in a recipe, becomes, and the keys that choose among several dataclasses.
_SECTIONS: Mapping[str, tuple[Mapping[str, Any], Callable[[], Iterable[type[Any]]]]] = {
    "attention": (
        {"name": str, "mechanism": str, "implementation": str, "layer_pattern": tuple[Any, ...]},
        lambda: [declared.config for declared in mechanisms().values()],
    ),
    "model": ({"family": str}, FAMILIES.values),
    "data": ({"corpus": str}, lambda: [*CORPORA.values(), *SYNTHETIC_TASKS.values(), ExamplesConfig]),
    "tokenizer": ({"kind": str}, KINDS.values),
    "optimizer": ({"name": str}, OPTIMIZERS.values),
    "training": ({}, lambda: [TrainingConfig]),
}
# Scripts that take the keys of another one as well.
_TAKES_ALSO = {"compare": ("train",)}


def recipe_classes(script: str) -> tuple[type[Any], ...]:
    """The dataclasses of a script's top-level keys: `TrainRecipe` in `recipes/train.py`, and so on."""
    names = (script, *_TAKES_ALSO.get(script, ()))
    return tuple(getattr(importlib.import_module(f"recipes.{name}"), f"{name.capitalize()}Recipe") for name in names)


@functools.cache
def key_types(script: str) -> Mapping[str, tuple[Any, ...]]:
    """The type hints of every dotted key; several where the choices of a section have fields of one name."""
    found: dict[str, tuple[Any, ...]] = {}
    for cls in recipe_classes(script):
        for key, hint in _fields(cls, ""):
            found[key] = (*found.get(key, ()), hint)
    return found


def is_text(hint: Any) -> bool:
    """Whether a value of this type can be a text: `str`, words to choose from, or one of these among others.

    Not beside a number, as in "a count, or auto": there Hydra's grammar tells the two apart.
    """
    if any(member in (bool, int, float) for member in _members(hint)):
        return False
    if typing.get_origin(hint) is typing.Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(hint))
    return hint is str or any(map(is_text, _members(hint)))


def is_texts(hint: Any) -> bool:
    """Whether a value of this type can be a list of texts."""
    if typing.get_origin(hint) is tuple:
        return all(is_text(item) for item in typing.get_args(hint) if item is not Ellipsis)
    return any(map(is_texts, _members(hint)))


def is_section(key: str) -> bool:
    """Whether the key is one that groups others."""
    return key in _SECTIONS


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()


def _fields(cls: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        key, hint = f"{prefix}{field.name}", hints[field.name]
        yield key, hint
        chosen_by, choices = _SECTIONS.get(key, ({}, tuple))
        yield from ((f"{key}.{name}", its_hint) for name, its_hint in chosen_by.items())
        nested = [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else choices()
        for each in nested:
            yield from _fields(each, f"{key}.")
