"""The command line as a user types it -> the one that Hydra takes.

- Flags may stand anywhere, and an unknown one is named.
- `attention=` and the other config groups take the name of a YAML and nothing else.
- Texts and paths are taken as typed: Hydra's grammar would trip over `prompt=f(x): {` or `run_dir=a=b`.
- `key=value` may set a key that the YAMLs do not mention; whether it exists is for the config dataclasses to say.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from zoo.config import UserError

# Keys whose values are texts or paths, in whatever script they occur. A list may be given where one makes sense.
TEXTS = frozenset(
    {
        "attention.calibration",
        "checkpoint",
        "compare_to",
        "data.cache_dir",
        "data.field",
        "data.name",
        "data.path",
        "data.validation_path",
        "harness.folder",
        "out",
        "pictures",
        "prompt",
        "prompt_file",
        "run_dir",
        "stop",
        "title",
        "tokenizer.path",
        "training.sample_prompt",
    }
)
_LISTS = frozenset({"data.path", "data.validation_path", "stop"})

MULTIRUN = "--multirun"
_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": MULTIRUN,
    "-sc": "--shell-completion",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
    "-i": "--info",
}
_SWITCHES = ("--help", "--hydra-help", "--version", "--resolve", "--run", MULTIRUN, "--shell-completion")
_ANY: tuple[str, ...] = ()
_VALUES: Mapping[str, tuple[str, ...]] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": _ANY,
    "--config-path": _ANY,
    "--config-name": _ANY,
    "--config-dir": _ANY,
    "--experimental-rerun": _ANY,
}
# Of these Hydra does one.
_COMMANDS = ("--run", MULTIRUN, "--cfg", "--info", "--shell-completion")


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


def rewritten(overrides: Sequence[str], *, config: Path, groups: Mapping[str, Sequence[str]], sweep: bool) -> list[str]:
    """Overrides as Hydra has to see them.

    Args:
        overrides: As typed.
        config: The script's YAML.
        groups: Choices by config group.
        sweep: Whether `a,b` stands for two jobs. Then texts follow Hydra's grammar like all else.

    Raises:
        UserError: On a config group whose value is none of its choices.
    """
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        bare = key.lstrip("+~")
        group = bare.partition("@")[0]
        if not equals or not bare:
            result.append(override)
        elif group in groups or "/" in group:
            # Hydra takes no null for a group, even where that is the default.
            if value != "null" or not _has_no_default(config, key):
                _require_names(override, bare, groups.get(group))
                result.append(override)
        elif bare == "hydra":
            raise UserError(f"hydra must be set by its keys, as in hydra.verbose=true; got {value!r}")
        elif bare != key or "@" in key or key.split(".")[0] == "hydra":
            result.append(override)
        elif key in TEXTS and not sweep and not _is_for_hydra(key, value):
            result.append(f"++{key}={quoted(value)}")
        else:
            result.append(f"++{override}")
    return result


def one_of(name: str, choice: object, choices: Sequence[str]) -> str:
    """The message on a config group's choice that does not exist."""
    close = difflib.get_close_matches(str(choice), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{name} must be one of its choices; got {choice!r}{hint} (choices: {', '.join(choices)})"


def quoted(text: str) -> str:
    """A text as Hydra's grammar has it, so that it comes out as it went in."""
    # Twofold: for Hydra's grammar, and for OmegaConf, which would fill in ${…}.
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return QuotedString(text=literal, quote=Quote.single).with_quotes()


def _following(flag: str, rest: list[str]) -> str:
    choices = _VALUES[flag]
    if flag == "--info" and not (rest and rest[0] in choices):
        return "all"
    return rest.pop(0) if rest else ""


def _is_for_hydra(key: str, value: str) -> bool:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    listed = key in _LISTS and value.startswith("[") and value.endswith("]")
    return quoted or listed or value == "null"


def _has_no_default(config: Path, group: str) -> bool:
    defaults: Iterable[object] = yaml.safe_load(config.read_text(encoding="utf-8")).get("defaults", [])
    return {group: None} in defaults


def _require_names(override: str, group: str, choices: Sequence[str] | None) -> None:
    """Refuses what is no name; a name that does not exist is for Hydra, which also searches elsewhere, to find."""
    parsed = OverridesParser.create().parse_override(override)
    values = parsed.sweep_iterator() if parsed.is_sweep_override() else [parsed.value()]
    for value in values:
        if isinstance(value, str) and value:
            continue
        raise UserError(f"{group} must be a name; got {value!r}" if choices is None else one_of(group, value, choices))
