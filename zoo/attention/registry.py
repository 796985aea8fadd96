"""Finds mechanisms: every module of `zoo/attention/variants/`, and the entry points of other packages.

A module offers either `MECHANISM` (a `Mechanism`) or just a function `allowed(query_index, key_index, config)`;
the config's class is then read from the annotation of its third parameter. An entry point of the group
`attention_zoo.mechanisms` names such a module, or a `Mechanism` inside one.
"""

import functools
import importlib
import importlib.metadata
import pkgutil
import types
import typing
from typing import Any

from zoo.attention import variants
from zoo.attention.mechanism import HeadGrouping, Mechanism
from zoo.attention.pattern import PatternConfig, pattern_mechanism
from zoo.config import UserError

ENTRY_POINT_GROUP = "attention_zoo.mechanisms"


@functools.cache
def mechanisms() -> dict[str, Mechanism]:
    """Every mechanism by name, in alphabetical order.

    Raises:
        UserError: If two sources claim one name, or a source offers no mechanism.
    """
    found: dict[str, tuple[str, Mechanism]] = {}
    sources: list[tuple[str, str, Any]] = []
    for module in pkgutil.iter_modules(variants.__path__, f"{variants.__name__}."):
        sources.append((module.name.rpartition(".")[2], module.name, importlib.import_module(module.name)))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        sources.append((entry.name, f"entry point {entry.value}", entry.load()))
    for name, origin, offered in sources:
        if name in found:
            first = found[name][0]
            raise UserError(f"attention: mechanism {name!r} must be unique; both {first} and {origin} claim it")
        found[name] = (origin, _mechanism_of(name, origin, offered))
    return {name: found[name][1] for name in sorted(found)}


def external_mechanism_names() -> tuple[str, ...]:
    """Names that other packages add."""
    return tuple(sorted(entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))


def mechanism_names() -> tuple[str, ...]:
    """Names of all mechanisms, sorted."""
    return tuple(mechanisms())


def mechanism(name: str) -> Mechanism:
    """The mechanism of this name.

    Raises:
        UserError: If there is none; lists those there are.
    """
    known = mechanisms()
    if name not in known:
        choices = ", ".join(known)
        raise UserError(f"attention.mechanism must be a registered mechanism; got {name!r} (choices: {choices})")
    return known[name]


def _mechanism_of(name: str, origin: str, offered: Any) -> Mechanism:
    if isinstance(offered, Mechanism):
        declared = offered
    elif isinstance(offered, types.ModuleType) and isinstance(vars(offered).get("MECHANISM"), Mechanism):
        declared = vars(offered)["MECHANISM"]
    elif isinstance(offered, types.ModuleType) and callable(vars(offered).get("allowed")):
        return pattern_mechanism(name=name, allowed=offered.allowed, config=_config_of(offered.allowed))
    else:
        raise UserError(f"attention: {origin} must offer MECHANISM or allowed(query_index, key_index, config)")
    if declared.name != name:
        raise UserError(f"attention: {origin} must name its mechanism {name!r}, as itself; got {declared.name!r}")
    return declared


def _config_of(allowed: Any) -> type[Any]:
    hints = [hint for key, hint in typing.get_type_hints(allowed).items() if key != "return"]
    configs = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, HeadGrouping)]
    return configs[0] if configs else PatternConfig
