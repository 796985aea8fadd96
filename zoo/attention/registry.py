"""Finds mechanisms: every module of `zoo/attention/variants/`, and the entry points of other packages.

A module offers either `MECHANISM` (a `Mechanism`) or just functions: `allowed(query_index, key_index, config)`, or
`score` or `sink_logit`, with or without `learned` (`zoo.ops.scores`); the config's class is then read from their
annotations. An entry point of the group `attention_zoo.mechanisms` names such a module, or a `Mechanism` inside one.
"""

import contextlib
import contextvars
import dataclasses
import functools
import importlib
import importlib.metadata
import logging
import pkgutil
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from zoo.attention import variants
from zoo.attention.interface import Capabilities
from zoo.attention.mechanism import HeadGrouping, Mechanism
from zoo.attention.pattern import PatternConfig, pattern_mechanism
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.ops.scores import ScoreHook

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "attention_zoo.mechanisms"
# The shipped variants, one YAML each; a mechanism of another package is offered as a variant, under names they leave.
SHIPPED_VARIANTS = Path(__file__).resolve().parents[2] / "configs" / "attention"


_loading = contextvars.ContextVar("another package is being loaded", default=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """What there is, by name: mechanisms, which of them other packages add, and why some of those are left out."""

    mechanisms: Mapping[str, Mechanism]
    external: tuple[str, ...]
    left_out: Mapping[str, str]


def mechanisms() -> Mapping[str, Mechanism]:
    """Every mechanism by name, in alphabetical order. What another package offers in vain is left out with a warning.

    Raises:
        UserError: If a module of this package offers no mechanism.
    """
    return _find().mechanisms


def external_mechanism_names() -> tuple[str, ...]:
    """Names that other packages add."""
    return _find().external


def left_out_names() -> tuple[str, ...]:
    """Names that other packages offer in vain; `mechanism` says why."""
    return tuple(_find().left_out)


def external_module(name: str) -> tuple[str, str] | None:
    """The module, and the name in it if there is one, of a mechanism that another package adds; None of ours."""
    if name not in external_mechanism_names():
        return None
    entry = next(each for each in _entry_points() if each.name == name)
    return entry.module, entry.attr


def mechanism_names() -> tuple[str, ...]:
    """Names of all mechanisms, sorted."""
    return tuple(mechanisms())


def mechanism(name: str) -> Mechanism:
    """The mechanism of this name.

    Raises:
        UserError: If there is none; lists those there are.
    """
    known = mechanisms()
    if name in _find().left_out:
        raise UserError(f"attention.mechanism must be one that works; {_find().left_out[name]}")
    if name not in known:
        choices = ", ".join(known)
        raise UserError(
            f"attention.mechanism must be a registered mechanism; got {shortened(name)} (choices: {choices})"
        )
    return known[name]


@functools.cache
def _own() -> _Found:
    found: dict[str, Mechanism] = {}
    for module in pkgutil.iter_modules(variants.__path__, f"{variants.__name__}."):
        name = module.name.rpartition(".")[2]
        found[name] = _mechanism_of(name, module.name, importlib.import_module(module.name))
    return _Found(mechanisms={name: found[name] for name in sorted(found)}, external=(), left_out={})


def _find() -> _Found:
    # Another package that looks up mechanisms while it is loaded finds this project's; and what travels with an
    # exported model, under a package of another name, has all that the model needs.
    return _own() if _loading.get() or not __name__.startswith("zoo.") else _find_all()


@functools.cache
def _find_all() -> _Found:
    found = dict(_own().mechanisms)
    offers: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in _entry_points():
        offers.setdefault(entry.name, []).append(entry)
    own = {*found, *(path.stem for path in SHIPPED_VARIANTS.glob("*.yaml"))}
    external, left_out = [], {}
    for name, entries in offers.items():
        try:
            found[name] = _offered(name, entries, own)
            external.append(name)
        except UserError as error:
            # Where a name is taken, what has it stays.
            if name not in own:
                left_out[name] = str(error)
            logger.warning("left out: %s", error)
    in_order = {name: found[name] for name in sorted(found)}
    return _Found(mechanisms=in_order, external=tuple(sorted(external)), left_out=left_out)


def _entry_points() -> Iterator[importlib.metadata.EntryPoint]:
    """Those of our group; as `importlib.metadata.entry_points`, which a single malformed file anywhere brings down."""
    known = set()
    for distribution in importlib.metadata.distributions():
        entries: list[importlib.metadata.EntryPoint] = []
        with contextlib.suppress(Exception):
            name = distribution.name.lower()
            if name in known:
                continue
            known.add(name)
            entries = [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
        yield from entries


def _offered(name: str, entries: list[importlib.metadata.EntryPoint], own: set[str]) -> Mechanism:
    """The mechanism that another package offers under a name.

    Raises:
        UserError: If it cannot be imported, is no mechanism, or has a name that is taken; names the package.
    """
    packages = [entry.dist.name if entry.dist is not None else entry.value for entry in entries]
    which = f"mechanism {shortened(name)} of package {' and of '.join(map(shortened, packages))}"
    if not re.fullmatch(r"\w+", name):
        raise UserError(f"{which} must have a name of letters, digits and _")
    if name in own or len(entries) > 1:
        raise UserError(f"{which} must be unique; the name is taken{' by this project' if name in own else ' twice'}")

    def load() -> Mechanism:
        declared = _mechanism_of(name, f"entry point {entries[0].value}", entries[0].load())
        _require_usable(declared)
        return declared

    return _guarded(load, which)


def _guarded(load: Callable[[], Mechanism], which: str) -> Mechanism:
    """Calls foreign code, which may print, exit or raise anything; only a real Ctrl-C passes."""
    with _interruptions() as typed:
        outside = _loading.set(True)
        try:
            # What is on stdout is the result of a command.
            with contextlib.redirect_stdout(sys.stderr):
                return load()
        except UserError as error:
            raise UserError(f"{which}: {error}") from None
        except BaseException as error:
            if typed:
                raise
            reason = f"{type(error).__name__}: {shortened(str(error))}"
            raise UserError(f"{which} must load without an error; got {reason}") from None
        finally:
            _loading.reset(outside)


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Notes each Ctrl-C, which tells it from a KeyboardInterrupt that code raises by itself."""
    typed: list[int] = []

    def note(number: int, frame: types.FrameType | None) -> None:
        typed.append(number)
        raise KeyboardInterrupt

    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield typed
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield typed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _require_usable(declared: Mechanism) -> None:
    """Refuses what would only fail later, in commands that list or configure every mechanism."""
    if not dataclasses.is_dataclass(declared.config) or not declared.implementations:
        raise UserError("it must have a dataclass as config, and implementations")
    typing.get_type_hints(declared.config)
    default = declared.config()
    for implementation in declared.implementations:
        if not isinstance(declared.capabilities(default, implementation), Capabilities):
            raise UserError(f"its implementation {implementation!r} must declare Capabilities")
    if declared.pattern is not None:
        index = mx.arange(2)
        mx.broadcast_to(mx.array(declared.pattern(index[:, None], index[None, :], default)), (2, 2))


def _mechanism_of(name: str, origin: str, offered: Any) -> Mechanism:
    if isinstance(offered, Mechanism):
        declared = offered
    elif isinstance(offered, types.ModuleType) and isinstance(vars(offered).get("MECHANISM"), Mechanism):
        declared = vars(offered)["MECHANISM"]
    elif isinstance(offered, types.ModuleType) and _functions_of(offered):
        return _mechanism_of_functions(name, _functions_of(offered))
    else:
        raise UserError(
            f"attention: {origin} must offer MECHANISM, or allowed(query_index, key_index, config), or"
            " score(scores, query_index, key_index, config), or sink_logit(config)"
        )
    if declared.name != name:
        raise UserError(f"attention: {origin} must name its mechanism {name!r}, as itself; got {declared.name!r}")
    return declared


def _functions_of(module: types.ModuleType) -> dict[str, Any]:
    """Those of a mechanism's functions that a module has by name; `learned` alone computes nothing."""
    names = ("allowed", "score", "sink_logit", "learned")
    found = {name: vars(module)[name] for name in names if callable(vars(module).get(name))}
    return found if found.keys() - {"learned"} else {}


def _mechanism_of_functions(name: str, functions: dict[str, Any]) -> Mechanism:
    hook = {key: function for key, function in functions.items() if key != "allowed"}
    return pattern_mechanism(
        name=name,
        allowed=functions.get("allowed"),
        config=_config_of(functions.values()),
        hook=ScoreHook(**hook) if hook else None,
    )


def _config_of(functions: Iterable[Any]) -> type[Any]:
    hints = [hint for each in functions for key, hint in typing.get_type_hints(each).items() if key != "return"]
    configs = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, HeadGrouping)]
    return configs[0] if configs else PatternConfig
