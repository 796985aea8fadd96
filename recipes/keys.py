"""The keys that a script takes: the type of each, and what `--help` says of it.

The types come from the dataclasses that its configuration becomes; the defaults and comments from its YAMLs.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

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
_WIDTH = 110
_KEY_WIDTH = 34
# Its keys are the ones that are set most often; those of the others depend on what is chosen.
_SHOWN_GROUP = "training"


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


def help_text(script: str, configs: Path, groups: Mapping[str, Sequence[str]]) -> str:
    """The help of a script.

    Args:
        script: Name of its recipe and of its YAML.
        configs: Folder of the YAMLs.
        groups: Choices by config group.
    """
    purpose = inspect.getdoc(importlib.import_module(f"recipes.{script}")) or ""
    pages = _pages(script, configs)
    mappings = (each for page in pages for each in _defaults(page) if isinstance(each, dict))
    chosen = {group: name for each in mappings for group, name in each.items()}
    sources = [("", page) for page in pages]
    if _SHOWN_GROUP in chosen:
        sources.append((f"{_SHOWN_GROUP}.", configs / _SHOWN_GROUP / f"{chosen[_SHOWN_GROUP]}.yaml"))
    keys = {f"{prefix}{key}": shown for prefix, page in sources for key, *shown in _values_and_comments(page)}
    documented = _documented(script)
    examples = re.findall(r"^# .*?(python scripts/.*)$", pages[-1].read_text(encoding="utf-8"), flags=re.MULTILINE)
    usage = [f"python scripts/{script}.py [KEY=VALUE …]", *examples]
    lines = [purpose.partition("\n")[0], "", *(f"  {line}" for line in usage), ""]
    if chosen:
        lines += [
            "Choices: a word picks a YAML of that folder in configs/, whose keys can be set as in model.num_layers=2"
        ]
        lines += [line for group, name in chosen.items() for line in _entry(group, name, ", ".join(groups[group]))]
        lines += [""]
    lines += ["Keys, with their defaults:"]
    for key, (value, comment) in keys.items():
        lines += _entry(key, value, comment or documented.get(key, ""))
    lines += [
        "",
        "--cfg job shows the whole configuration instead of running it; --multirun KEY=A,B runs several.",
        "docs/guide.md explains the rest.",
    ]
    return "\n".join(lines) + "\n"


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


def _entry(key: str, value: Any, meaning: str) -> list[str]:
    meaning = f"has to be given; {meaning}" if value == MISSING else meaning
    start = f"  {key}={'null' if value is None else '' if value == MISSING else value}"
    gap = " " * max(2, _KEY_WIDTH - len(start))
    return textwrap.wrap(
        f"{start}{gap}{meaning}".rstrip(),
        width=_WIDTH,
        subsequent_indent=" " * _KEY_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _pages(script: str, configs: Path) -> list[Path]:
    """The script's YAML, after those of other scripts that it takes as its own."""
    page = configs / f"{script}.yaml"
    others = [each for each in _defaults(page) if isinstance(each, str) and each != "_self_"]
    return [*(path for other in others for path in _pages(other, configs)), page]


def _defaults(page: Path) -> list[Any]:
    return list((yaml.safe_load(page.read_text(encoding="utf-8")) or {}).get("defaults", []))


def _values_and_comments(page: Path) -> Iterator[tuple[str, str, str]]:
    """Keys with their values and comments, as they are written."""
    section = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +(.*?))??(?: +# (.*))?", line)
        if found is None:
            continue
        indent, name, value, comment = found.groups()
        if not indent:
            section = "" if value else f"{name}."
        if value and name != "defaults":
            yield f"{section if indent else ''}{name}", value, comment or ""


def _documented(script: str) -> dict[str, str]:
    """What the dataclasses say of their fields, by dotted key."""
    found = _attributes(TrainingConfig, f"{_SHOWN_GROUP}.")
    for recipe in recipe_classes(script):
        found |= _attributes(recipe, "")
    return found


def _attributes(cls: type[Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        part = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", part, flags=re.MULTILINE):
            found[f"{prefix}{name}"] = " ".join(text.split())
    for field in dataclasses.fields(cls):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            found |= _attributes(field.type, f"{prefix}{field.name}.")
    return found
