"""Mapping -> frozen dataclass, strictly: unknown keys, missing keys and wrong types are refused by name."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from zoo.config.errors import SHOWN, FieldError, UserError, shortened

ConfigT = TypeVar("ConfigT")


def from_mapping(cls: type[ConfigT], mapping: Mapping[str, Any], *, path: str) -> ConfigT:
    """Builds a config dataclass from a plain mapping.

    Args:
        cls: A frozen, keyword-only dataclass.
        mapping: Field name -> value; nested mappings for nested dataclasses.
        path: Where the mapping stands in the user's configuration, for messages (for example `model`).

    Returns:
        An instance of `cls`.

    Raises:
        UserError: On an unknown or missing key, a value of the wrong type, or a condition of the dataclass
            that does not hold.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise UserError(f"{path}: unknown key {shortened(key)}{_suggestion(str(key)[:SHOWN], fields)}")
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _coerce(hints[name], mapping[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path}: missing key {name!r}; the keys are {', '.join(fields)}")
    try:
        return cls(**values)
    except FieldError as error:
        raise UserError(f"{path}: {error}") from None


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain, JSON-ready mapping of a config dataclass; `from_mapping` turns it back into an equal one."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _suggestion(key: str, names: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(names), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} the keys are {', '.join(sorted(names))}"


def _coerce(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(arguments, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{path} must be one of {', '.join(map(str, arguments))}; got {shortened(value)}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _wrong_type(path, "a mapping", value)
        return from_mapping(hint, value, path=path)
    if origin is tuple:
        return _coerce_tuple(arguments, value, path)
    if origin in (dict, Mapping) or hint in (dict, Mapping) or origin is typing.get_origin(Mapping[str, Any]):
        if not isinstance(value, Mapping):
            raise _wrong_type(path, "a mapping", value)
        return {str(key): item for key, item in value.items()}
    return _coerce_scalar(hint, value, path)


def _coerce_union(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    failures = []
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _coerce(argument, value, path)
        except UserError as error:
            failures.append(error)
    raise failures[0]


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong_type(path, "a list", value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_coerce(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if len(arguments) != len(value):
        raise UserError(f"{path} must have {len(arguments)} items; got {shortened(list(value))}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_coerce(argument, item, f"{path}[{index}]") for index, (argument, item) in enumerate(pairs))


def _coerce_scalar(hint: Any, value: Any, path: str) -> Any:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value, path)
    if hint is int and isinstance(value, bool):
        raise _wrong_type(path, names[int], value)
    if hint in names:
        if not isinstance(value, hint):
            raise _wrong_type(path, names[hint], value)
        return value
    raise TypeError(f"{path}: {hint!r} is not a type that a config field may have")


def _finite(value: float, path: str) -> float:
    """A number that can be reckoned with: where "no limit" is meant, a field takes null."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{path} must be a finite number; got {shortened(value)}")
    return number


def _wrong_type(path: str, expected: str, value: Any) -> UserError:
    return UserError(f"{path} must be {expected}; got {shortened(value)}")
