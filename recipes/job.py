"""What one job of a command line is: its configuration, how it was asked for, and what sets it apart in a sweep."""

import contextvars
import copy
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from recipes.command_line import quoted
from zoo.config import from_mapping
from zoo.config.files import read_json_as, read_yaml_mapping, typed_path

CONFIG, COMMAND = "config.yaml", "command.json"
_LONGEST_NAME = 100
# Where a run lies, whether it may go on, and by how many processes: no settings of it.
_WHERE = ("run_dir", "resume", "launch")

# The overrides of this command line as they were typed.
TYPED: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("typed overrides", default=())
# Its flags that say where configurations are.
FLAGS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("typed flags", default=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """How a run was asked for; `command.json` in its folder.

    Attributes:
        overrides: As typed; of a sweep, this job's.
        choices: The YAML of each config group.
    """

    overrides: tuple[str, ...]
    choices: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job of this command line.

    Attributes:
        config: The configuration, plain.
        command: How it was asked for.
        keys: What the overrides set, groups included.
        varying: The overrides in which the jobs of a sweep differ; none outside a sweep.
    """

    config: dict[str, Any]
    command: Command
    keys: tuple[str, ...]
    varying: tuple[str, ...]

    @property
    def model_name(self) -> str:
        """Name of the model's YAML."""
        return str(self.command.choices.get("model"))

    def folder(self) -> Path | None:
        """The folder that `run_dir` names, in a sweep one for each job; None for a new one under `runs/`.

        Raises:
            UserError: If the path begins with the home of an unknown user.
        """
        run_dir = self.config["run_dir"]
        if not isinstance(run_dir, str) or not run_dir:
            return None
        apart = _without(self.varying, "run_dir")
        return typed_path(run_dir, what="run_dir") / (file_name(apart) if apart else "")

    def name(self, *facts: str) -> str:
        """A name of this run among others: facts about it, then what sets it apart in a sweep."""
        apart = _without(self.varying, "attention", "model")
        return "-".join([*facts, *([file_name(apart)] if apart else [])])

    def going_on(self, folder: Path) -> Self:
        """This job with the settings that a run was begun with, but for those that were typed now.

        Raises:
            UserError: If what the run's folder holds cannot be read.
        """
        if not os.path.lexists(folder / CONFIG):
            return self
        saved = read_yaml_mapping(folder / CONFIG, what="run_dir")
        before = command_of(folder, saved)
        typed = {group: name for group, name in self.command.choices.items() if group in self.keys}
        # To choose what the run has chosen changes nothing: its section may have been changed by keys.
        same = {group for group, name in typed.items() if before.choices.get(group) == name}
        config = copy.deepcopy(saved)
        for key in (*self.keys, *_WHERE):
            if key not in same:
                _take(config, self.config, re.split(r"[./]", key))
        command = Command(
            overrides=_merged(before.overrides, self.command.overrides), choices={**before.choices, **typed}
        )
        return dataclasses.replace(self, config=config, command=command)


def this_job(config: DictConfig) -> Job:
    """The job that Hydra runs now, with its composed configuration."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    hydra = HydraConfig.get()
    overrides = job_overrides()
    fixed = set(hydra.job.config.override_dirname.exclude_keys)
    choices = {group: name for group, name in hydra.runtime.choices.items() if not str(group).startswith("hydra")}
    return Job(
        config={str(key): value for key, value in plain.items()},
        command=Command(overrides=overrides, choices=choices),
        keys=tuple(_key(each) for each in hydra.overrides.task),
        varying=_without(overrides, *fixed) if in_a_sweep() else (),
    )


def in_a_sweep() -> bool:
    """Whether this job is one of several of a command line."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def job_overrides() -> tuple[str, ...]:
    """The overrides of this job, as typed; of a sweep, those of the job that runs now."""
    if not in_a_sweep():
        return TYPED.get()
    by_key = {each.key_or_group: _as_typed(each) for each in _parsed(HydraConfig.get().overrides.task)}
    return tuple(by_key.values())


def of_hydra(override: str) -> bool:
    """Whether an override is of Hydra itself, such as of its launcher, and none of a script's."""
    return re.match(r"[+~]*hydra[./]", override) is not None


def fixed_in_a_sweep(wanted: Sequence[str]) -> str:
    """An override of Hydra's own that tells every job, wherever it runs, which keys do not vary in the sweep."""
    # Of a key that is given twice, the last one counts.
    fixed = {each.key_or_group: not each.is_sweep_override() for each in _parsed(wanted)}
    keys = ",".join(quoted(key) for key, is_fixed in fixed.items() if is_fixed)
    return f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"


def command_of(folder: Path, config: Mapping[str, Any]) -> Command:
    """How the run in a folder was asked for; of a run from before that was kept, what its settings tell.

    Raises:
        UserError: If the file cannot be read.
    """
    path = folder / COMMAND
    if os.path.lexists(path):
        return read_json_as(Command, path, what="run_dir")
    attention, model = (config.get(section) for section in ("attention", "model"))
    choices = {
        "attention": attention.get("name") if isinstance(attention, Mapping) else None,
        "model": model.get("family") if isinstance(model, Mapping) else None,
    }
    return from_mapping(Command, {"overrides": [], "choices": choices}, path="run_dir")


def file_name(overrides: Sequence[str]) -> str:
    """Overrides as the name of a file or folder: readable, short, and another one for others."""
    text = ",".join(overrides)
    name = re.sub(r"[^\w.=,+-]", "_", text, flags=re.ASCII)
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _key(override: str) -> str:
    """The key or group of an override that Hydra has taken; its grammar is slow where a value is long."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _without(overrides: Sequence[str], *keys: str) -> tuple[str, ...]:
    return tuple(each for each in overrides if each.partition("=")[0] not in keys)


def _merged(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """Earlier overrides and later ones, of each key the last."""
    by_key = {each.partition("=")[0].lstrip("+"): each for each in (*before, *now)}
    return tuple(by_key.values())


def _as_typed(override: Override) -> str:
    """An override that Hydra took apart, without what was added for Hydra."""
    if override.is_delete():
        return f"~{override.key_or_group}"
    value = override.value()
    if isinstance(value, str):
        # `quoted` doubled the backslashes before an interpolation and added one.
        text = re.sub(r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", value)
    else:
        text = override.get_value_element_as_str()
    return f"{override.key_or_group}={text}"


def _take(config: dict[str, Any], source: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Sets one key, however deep, to what it is in `source`; takes it away if it is not there."""
    *sections, last = parts
    for part in sections:
        inner, there = config.get(part), source.get(part)
        config[part] = inner if isinstance(inner, dict) else {}
        config, source = config[part], there if isinstance(there, Mapping) else {}
    if last in source:
        config[last] = copy.deepcopy(source[last])
    else:
        config.pop(last, None)
