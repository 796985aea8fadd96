r"""The command line as a user types it -> the one that Hydra takes.

- Flags may stand anywhere, and an unknown one is named.
- `attention=` and the other config groups take the name of a YAML and nothing else.
- A value whose field is a text is taken as typed, `${…}` included; the field's type decides (see `recipes.keys`).
  `null` is no value, and a text that stands in quotes as a whole is what stands between them. Where a field takes a
  list, `[a,b]` is one; there, and between the runs of a sweep, commas separate. In prompts and stop texts `\n` is a
  new line.
- All other values follow Hydra's grammar, without `${…}`.
- `key=value` may set a key that the YAMLs do not mention; whether it exists is for the config dataclasses to say.
"""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from recipes.keys import is_section, is_text, is_texts, key_types
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import LIMIT_DEPTH

# Texts that a model reads or writes: a shell makes new lines awkward to type, and these need them.
_WITH_NEW_LINES = frozenset({"prompt", "prompts", "stop", "system", "training.sample_prompt"})
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_QUOTED = r"""(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*") *"""
# What stands between commas: in quotes, or as it is typed; between the runs of a sweep a list in brackets as well.
_ITEM = rf" *(?:{_QUOTED}|(?P<bare>(?![ '\"])[^,]+))"
_LISTED = re.sub(r"\?P<\w+>", "?:", _ITEM.replace("[^,]", r"[^,\]]"))
_BRACKETS = rf" *\[ *(?P<list>(?:{_LISTED}(?:,{_LISTED})*)?)\] *"
_ITEMS, _ITEMS_OR_LISTS = (
    re.compile(f"{item}(?:,|(?P<end>\\Z))", re.DOTALL) for item in (_ITEM, rf"(?:{_BRACKETS}|(?! *\[){_ITEM})")
)
# Longest value that follows Hydra's grammar, whose parser is slow: a list of thousands of numbers.
_LIMIT_CHARACTERS = 20_000
# Values of any grammar, which need no parser to tell.
_PLAIN = re.compile(r"-?\d{1,9}(\.\d{1,9})?|true|false|null", re.ASCII)
# How to say of a group that may be left out that it is: "keep" the attention that a checkpoint has.
_NOTHING = {"attention": ("null", "keep")}
# Of keys, and of YAMLs, which are files.
_LONGEST_NAME = 200

MULTIRUN = "--multirun"
# Short forms of flags, and the values that these take: None for none, nothing for any.
_FLAGS: Mapping[str, tuple[str | None, tuple[str, ...] | None]] = {
    "--help": ("-h", None),
    "--hydra-help": (None, None),
    "--version": (None, None),
    "--resolve": (None, None),
    "--package": ("-p", ()),
    "--config-path": ("-cp", ()),
    "--config-name": ("-cn", ()),
    "--config-dir": ("-cd", ()),
    "--run": ("-r", None),
    MULTIRUN: ("-m", None),
    "--cfg": ("-c", ("job", "hydra", "all")),
    "--info": ("-i", ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
}
_LONG = {short or name: name for name, (short, _) in _FLAGS.items()} | {name: name for name in _FLAGS}
# Of these Hydra does one.
_COMMANDS = ("--run", MULTIRUN, "--cfg", "--info")


def split_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Separates flags from overrides.

    Returns:
        The flags, in their long form and with their values, and the overrides.

    Raises:
        UserError: On an unknown flag, a missing or wrong value, or two flags that exclude each other.
    """
    flags: dict[str, str] = {}
    overrides = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        written, equals, value = argument.partition("=")
        name = _LONG.get(written, "")
        choices = _FLAGS[name][1] if name else None
        if not name or (choices is None and equals):
            close = difflib.get_close_matches(written, _LONG, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{written} must be a flag that exists{hint} (choices: {', '.join(sorted(_LONG))})")
        if choices is not None:
            if name == "--info" and not equals and not (rest and rest[0] in choices):
                value = "all"
            elif not equals:
                value = rest.pop(0) if rest else ""
            if not value or (choices and value not in choices):
                among = f"one of {', '.join(choices)}" if choices else "given"
                raise UserError(f"{written} must be followed by its value, {among}; got {value!r}")
        flags[name] = value
    commands = [name for name in _COMMANDS if name in flags]
    if len(commands) > 1:
        raise UserError(f"{' and '.join(commands)} exclude each other; give one")
    return flags, overrides


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
        if "\0" in override or override.encode(errors="replace").decode() != override:
            raise UserError(
                f"{shortened(override)} must be UTF-8, as everything that is saved, without null characters"
            )
        key, equals, value = override.partition("=")
        bare = key.lstrip("+~")
        group = bare.partition("@")[0]
        chooses = bool(equals) and (group in groups or "/" in group)
        if not bare or len(key) > _LONGEST_NAME:
            raise UserError(f"{shortened(override)} must begin with a key, as in training.steps=300")
        if equals and bare == "hydra":
            raise UserError(f"hydra must be set by its keys, as in hydra.verbose=true; got {value!r}")
        if chooses and value in _NOTHING.get(group, ("null",)) and _has_no_default(config, key):
            # Hydra takes no null for a group, even where that is the default.
            continue
        if chooses or not equals or key.startswith("~") or "@" in key or key.split(".")[0] == "hydra":
            parsed = _parsed(override)
            if chooses:
                _require_names(parsed, bare, groups.get(group))
            result.append(override)
        elif _KEY.fullmatch(bare):
            result.append(f"++{bare}={_value(script, bare, value, sweep=sweep)}")
        else:
            raise UserError(f"{shortened(key)} must be a key, as in training.steps=300")
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
        if not _PLAIN.fullmatch(value):
            _parsed(f"{key}={value}")
        return value
    texts = any(map(is_texts, hints))
    if sweep and value.strip():
        return ",".join(_written(key, item) for item in _items(key, value, _ITEMS_OR_LISTS if texts else _ITEMS))
    if texts and value.startswith("[") and value.endswith("]"):
        return _written(key, _items(key, value[1:-1]))
    if re.fullmatch(_QUOTED, value, re.DOTALL):
        return _written(key, _unquoted(value.rstrip(" ")))
    return _written(key, None if value == "null" else value)


def _written(key: str, value: Any) -> str:
    """A text, a list of texts or None in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(_written(key, item) for item in value)}]"
    if key in _WITH_NEW_LINES:
        # One more backslash keeps it as it is.
        value = re.sub(r"(\\+)n", lambda found: "\n" if len(found[1]) == 1 else f"{found[1][1:]}n", value)
    return quoted(value)


def _items(key: str, text: str, pattern: re.Pattern[str] = _ITEMS) -> list[Any]:
    """What commas separate: texts as typed or in quotes, None for null, lists where the pattern has them.

    Raises:
        UserError: On an empty item, or a quote or bracket that is not closed.
    """
    items: list[Any] = []
    position, ended = 0, not text.strip()
    while not ended:
        found = pattern.match(text, position)
        if found is None:
            raise UserError(f"{key} must be items between commas, each quote and bracket closed; got {shortened(text)}")
        parts = found.groupdict()
        if parts.get("list") is not None:
            items.append(_items(key, parts["list"]))
        elif parts["quoted"] is not None:
            items.append(_unquoted(parts["quoted"]))
        else:
            bare = parts["bare"].rstrip(" ")
            items.append(None if bare == "null" else bare)
        position, ended = found.end(), parts["end"] is not None
    return items


def _unquoted(text: str) -> str:
    """Backslashes before a quote, or before the end, stand for half as many, as in Hydra's grammar."""
    return re.sub(rf"(\\+)({text[0]}|\Z)", lambda run: run[1][: len(run[1]) // 2] + run[2], text[1:-1])


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
    return {group: None} in yaml.safe_load(config.read_text(encoding="utf-8")).get("defaults", [])


def _require_names(parsed: Override, group: str, choices: Sequence[str] | None) -> None:
    """Refuses what is no name; a name that does not exist is for Hydra, which also searches elsewhere, to find."""
    for value in parsed.sweep_iterator() if parsed.is_sweep_override() else [parsed.value()]:
        names = value.split("/") if isinstance(value, str) else [""]
        if any(name in ("", ".", "..") or len(name) > _LONGEST_NAME for name in names):
            said = f"{group} must be a name; got {shortened(value)}"
            raise UserError(said if choices is None else one_of(group, value, choices))
