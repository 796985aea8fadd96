r"""The command line as a user types it -> the one that Hydra takes.

- Flags may stand anywhere, and an unknown one is named.
- `attention=` and the other config groups take the name of a YAML and nothing else.
- A value whose field is a text is taken as typed, `${…}` included; the field's type decides (see `recipes.fields`).
  `null` is no value, and a text that stands in quotes as a whole is what stands between them. Where a field takes a
  list, `[a,b]` is one; there, and between the runs of a sweep, commas separate. In prompts and stop texts `\n` is a
  new line.
- All other values follow Hydra's grammar, without `${…}`.
- `key=value` may set a key that the YAMLs do not mention; whether it exists is for the config dataclasses to say.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from recipes.fields import is_section, is_text, is_texts, key_types
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import LIMIT_DEPTH

# Texts that a model reads or writes: a shell makes new lines awkward to type, and these need them.
_WITH_NEW_LINES = frozenset({"prompt", "prompts", "stop", "system", "training.sample_prompt"})
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_QUOTES = ("'", '"', "")
_QUOTED = re.compile(r""" *(?:'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)") *""", re.DOTALL)
_OPENING = re.compile(r" *\[ *")
# Longest value that follows Hydra's grammar, whose parser is slow: a list of thousands of numbers.
_LIMIT_CHARACTERS = 20_000
# How to say of a group that may be left out that it is: "keep" the attention that a checkpoint has.
_NOTHING = {"attention": ("null", "keep")}
# Of keys, and of YAMLs, which are files.
_LONGEST_NAME = 200

MULTIRUN = "--multirun"
_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": MULTIRUN,
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
    "-i": "--info",
}
_SWITCHES = ("--help", "--hydra-help", "--version", "--resolve", "--run", MULTIRUN)
_ANY: tuple[str, ...] = ()
_VALUES: Mapping[str, tuple[str, ...]] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": _ANY,
    "--config-path": _ANY,
    "--config-name": _ANY,
    "--config-dir": _ANY,
}
# Of these Hydra does one.
_COMMANDS = ("--run", MULTIRUN, "--cfg", "--info")


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates flags from overrides.

    Returns:
        The flags, in their long form and as one argument each, and the overrides.

    Raises:
        UserError: On an unknown flag, a missing or wrong value, or two flags that exclude each other.
    """
    flags, overrides = {}, []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        written, equals, value = argument.partition("=")
        name = _SHORT.get(written, written)
        if name in _SWITCHES and not equals:
            flags[name] = name
        elif name in _VALUES:
            if not equals:
                value = _following(name, rest)
            choices = _VALUES[name]
            if not value or (choices and value not in choices):
                among = f"one of {', '.join(choices)}" if choices else "given"
                raise UserError(f"{written} must be followed by its value, {among}; got {value!r}")
            flags[name] = f"{name}={value}"
        else:
            known = sorted({*_SHORT, *_SWITCHES, *_VALUES})
            close = difflib.get_close_matches(written, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{written} must be a flag that exists{hint} (choices: {', '.join(known)})")
    commands = [name for name in _COMMANDS if name in flags]
    if len(commands) > 1:
        raise UserError(f"{' and '.join(commands)} exclude each other; give one")
    return list(flags.values()), overrides


def rewritten(
    overrides: Sequence[str], *, script: str, config: Path, groups: Mapping[str, Sequence[str]], sweep: bool
) -> list[str]:
    """Overrides as Hydra has to see them.

    Args:
        overrides: As typed.
        script: Name of the recipe, whose fields decide what is a text.
        config: The script's YAML.
        groups: Choices by config group.
        sweep: Whether `a,b` stands for two jobs.

    Raises:
        UserError: On what is no override, a config group whose value is none of its choices, or a value that cannot
            be read.
    """
    result = []
    for override in overrides:
        _require_characters(override)
        key, equals, value = override.partition("=")
        bare = key.lstrip("+~")
        group = bare.partition("@")[0]
        if not bare or len(key) > _LONGEST_NAME:
            raise UserError(f"{shortened(override)} must begin with a key, as in training.steps=300")
        if not equals:
            _parsed(override)
            result.append(override)
        elif group in groups or "/" in group:
            # Hydra takes no null for a group, even where that is the default.
            if value not in _NOTHING.get(group, ("null",)) or not _has_no_default(config, key):
                _require_names(override, bare, groups.get(group))
                result.append(override)
        elif bare == "hydra":
            raise UserError(f"hydra must be set by its keys, as in hydra.verbose=true; got {value!r}")
        elif key.startswith("~") or "@" in key or key.split(".")[0] == "hydra":
            _parsed(override)
            result.append(override)
        elif not _KEY.fullmatch(bare):
            raise UserError(f"{shortened(key)} must be a key, as in training.steps=300")
        else:
            result.append(f"++{bare}={_value(script, bare, value, sweep=sweep)}")
    return result


def one_of(name: str, choice: object, choices: Sequence[str]) -> str:
    """The message on a config group's choice that does not exist."""
    close = difflib.get_close_matches(str(choice)[:_LONGEST_NAME], choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{name} must be one of its choices; got {shortened(choice)}{hint} (choices: {', '.join(choices)})"


def in_quotes(text: str) -> str:
    """A text as an item of a list on a command line; Hydra's grammar and ours have one rule for it."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def quoted(text: str) -> str:
    """A text as Hydra has to see it, so that it comes out as it went in: OmegaConf would fill in ${…}."""
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def _following(flag: str, rest: list[str]) -> str:
    choices = _VALUES[flag]
    if flag == "--info" and not (rest and rest[0] in choices):
        return "all"
    return rest.pop(0) if rest else ""


def _value(script: str, key: str, value: str, *, sweep: bool) -> str:
    """A value in Hydra's grammar: of texts each as typed, of all else what was typed."""
    types = key_types(script)
    hints = types.get(key, ())
    parents = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
    inside_a_value = not hints and any(parent in types and not is_section(parent) for parent in parents)
    # A key that no dataclass has counts as a text, since it is refused later, by name.
    if inside_a_value or not all(is_text(hint) or is_texts(hint) for hint in hints):
        if "${" in value:
            raise UserError(f"{key} must be written out, for ${{…}} is filled in only in YAMLs; got {shortened(value)}")
        _parsed(f"{key}={value}")
        return value
    texts = any(map(is_texts, hints))
    if sweep and value:
        return ",".join(_written(key, item) for item in _items(key, value, lists=texts)[0])
    if texts and value.startswith("[") and value.endswith("]"):
        return _written(key, _items(key, value[1:-1])[0] if value[1:-1].strip() else [])
    quotation = _QUOTED.fullmatch(value) if value[:1] in _QUOTES else None
    if quotation is not None:
        return _written(key, _unquoted(quotation))
    return _written(key, None if value == "null" else value)


def _written(key: str, value: Any) -> str:
    """A text, a list of texts or None in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(_written(key, item) for item in value)}]"
    return quoted(_with_new_lines(value) if key in _WITH_NEW_LINES else value)


def _with_new_lines(text: str) -> str:
    r"""`\n` as a new line; one more backslash before it keeps it as it is."""
    return re.sub(r"(\\+)n", lambda found: "\n" if len(found[1]) == 1 else f"{found[1][1:]}n", text)


def _items(key: str, text: str, start: int = 0, *, lists: bool = False, closing: str = "") -> tuple[list[Any], int]:
    """What commas separate, and where it ends: texts as typed or in quotes, None for null, lists where there may be.

    Raises:
        UserError: On an empty item, or a quote or bracket that is not closed.
    """
    items: list[Any] = []
    position = start
    while True:
        item: Any
        quotation = _QUOTED.match(text, position)
        opening = _OPENING.match(text, position) if lists else None
        if quotation is not None:
            item, position = _unquoted(quotation), quotation.end()
        elif opening is not None:
            item, position = _items(key, text, opening.end(), closing="]")
        else:
            begin, position = position, _end(text, position, closing)
            item = text[begin:position].strip(" ")
            if closing and not item and not items and text[position:].startswith(closing):
                return [], position + 1
            if item[:1] in _QUOTES:
                raise UserError(f"{key} must be items between commas, each quote closed; got {shortened(text)}")
            item = None if item == "null" else item
        items.append(item)
        following = text[position : position + 1]
        if following == closing:
            return items, position + len(closing)
        if following != ",":
            raise UserError(f"{key} must be items between commas, each bracket closed; got {shortened(text)}")
        position += 1


def _end(text: str, position: int, closing: str) -> int:
    """Where an item without quotes ends."""
    found = re.compile(f"[,{re.escape(closing)}]").search(text, position)
    return len(text) if found is None else found.start()


def _unquoted(found: re.Match[str]) -> str:
    """Backslashes before a quote, or before the end, stand for half as many, as in Hydra's grammar."""
    quote, text = ("'", found[1]) if found[1] is not None else ('"', found[2])
    return re.sub(rf"(\\+)({quote}|\Z)", lambda run: run[1][: len(run[1]) // 2] + run[2], text)


def _require_characters(override: str) -> None:
    try:
        override.encode()
    except UnicodeEncodeError:
        raise UserError(f"{shortened(override)} must be UTF-8, as everything that is saved") from None
    if "\0" in override:
        raise UserError(f"{shortened(override)} must hold no null character")


def _parsed(override: str) -> Override:
    """What follows Hydra's grammar.

    Raises:
        UserError: If it is longer or nested deeper than anybody means.
        OverrideParseException: If it does not follow it.
    """
    if len(override) > _LIMIT_CHARACTERS:
        raise UserError(f"{shortened(override)} must have at most {_LIMIT_CHARACTERS} characters")
    depth = max(itertools.accumulate((each in "[{(") - (each in "]})") for each in override), default=0)
    if depth > LIMIT_DEPTH:
        raise UserError(f"{shortened(override)} must be nested at most {LIMIT_DEPTH} deep; it is deeper")
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
        return parsed
    except HydraException:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        # A number of thousands of digits, a function with wrong arguments: the parser lets Python's own errors out.
        raise UserError(f"{shortened(override)} must follow Hydra's grammar; {error}") from None


def _has_no_default(config: Path, group: str) -> bool:
    defaults: Iterable[object] = yaml.safe_load(config.read_text(encoding="utf-8")).get("defaults", [])
    return {group: None} in defaults


def _require_names(override: str, group: str, choices: Sequence[str] | None) -> None:
    """Refuses what is no name; a name that does not exist is for Hydra, which also searches elsewhere, to find."""
    parsed = _parsed(override)
    values = parsed.sweep_iterator() if parsed.is_sweep_override() else [parsed.value()]
    for value in values:
        names = value.split("/") if isinstance(value, str) else [""]
        if all(name not in ("", ".", "..") and len(name) <= _LONGEST_NAME for name in names):
            continue
        raise UserError(
            f"{group} must be a name; got {shortened(value)}" if choices is None else one_of(group, value, choices)
        )
