"""What every script promises: Hydra overrides in, one JSON line out, and mistakes as one clear line.

Progress and logs go to stderr; the last line on stdout is one JSON object. Exit code 0 on success, 2 with one
`error: …` line on stderr for what the user can mend (with a traceback if HYDRA_FULL_ERROR=1), 1 for our own faults,
130 for an interruption before there is anything to save.
"""

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes.command_line import MULTIRUN, one_of, quoted, rewritten, split_flags
from recipes.job import FLAGS, TYPED, fixed_in_a_sweep, in_a_sweep, job_overrides
from recipes.keys import help_text
from recipes.streams import configure_logging, open_streams, print_json, show
from zoo.attention.catalog import expand
from zoo.attention.registry import external_mechanism_names, left_out_names
from zoo.config import UserError
from zoo.config.errors import LONGEST_MESSAGE, printable, shortened
from zoo.config.files import read_yaml
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.runtime.memory import is_exhaustion

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
INTERRUPTED = 130
# Set for scripts that another script runs, to its process: if that one is killed, they save what they have and end.
END_WITH_PARENT = "ZOO_END_WITH_PARENT"

# Hydra must neither change the folder, nor make one of its own, nor configure logging.
_QUIET = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)

# What the user can mend.
_MISTAKES = (UserError, HydraException, OmegaConfBaseException)

Main = Callable[[DictConfig], Mapping[str, Any]]
# A job's exit code, or the fault of ours that ended it: returned, for Hydra would say of one that is raised.
Outcome = int | Exception


class _EndOfSweep(BaseException):
    """Leaves a sweep after an interrupted job, with the exit code; no Exception, for launchers keep those and go on."""


def run(config_name: str, main: Main) -> None:
    """Runs a recipe as a script's whole life; does not return.

    Args:
        config_name: Name of the top-level YAML in `configs/`.
        main: Takes the composed configuration and returns the JSON object to print.
    """
    open_streams()
    if parent := os.environ.get(END_WITH_PARENT):
        # Told and not asked for here: the parent may have been killed while we were importing.
        threading.Thread(target=_end_with_parent, args=(int(parent),), daemon=True).start()
    code = execute(config_name, main, sys.argv[1:])
    if code == INTERRUPTED:
        # Who insists while Python cleans up gets no traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def execute(config_name: str, main: Main, arguments: Sequence[str]) -> int:
    """Runs a recipe.

    Args:
        config_name: Name of the top-level YAML in `configs/`.
        main: Takes the composed configuration and returns the JSON object to print.
        arguments: The command line after the script's name.

    Returns:
        The exit code. Our own faults pass through, which makes Python's exit code 1.
    """
    configure_logging()
    return _exit_code(lambda: _run(config_name, main, arguments))


def choice_name(group: str) -> str:
    """Name of the YAML that was chosen in a config group, for use inside a recipe."""
    return str(HydraConfig.get().runtime.choices[group])


def config_groups(script: str) -> dict[str, list[str]]:
    """The choices that a script has in each config group."""
    groups = {path.name: sorted(yaml.stem for yaml in path.glob("*.yaml")) for path in CONFIGS.iterdir()}
    groups["attention"] = sorted({*groups["attention"], *external_mechanism_names()})
    if script == "finetune":
        # Their tokens are no text, and no checkpoint's.
        groups["data"] = [name for name in groups["data"] if name not in SYNTHETIC_TASKS]
    return {group: choices for group, choices in groups.items() if choices}


def _run(config_name: str, main: Main, arguments: Sequence[str]) -> int:
    flags, overrides = split_flags(arguments)
    groups = config_groups(config_name)
    if "--help" in flags:
        show(help_text(config_name, CONFIGS, groups))
        return 0
    TYPED.set(tuple(overrides))
    FLAGS.set(tuple(f"{name}={value}" for name, value in flags.items() if name.startswith("--config")))
    sweep = MULTIRUN in flags or "hydra.mode=MULTIRUN" in overrides
    # Those left out too: who asks for one is told why.
    for name in (*external_mechanism_names(), *left_out_names()):
        ConfigStore.instance().store(group="attention", name=name, node={"mechanism": name})
    yaml = CONFIGS / f"{config_name}.yaml"
    wanted = rewritten(overrides, script=config_name, config=yaml, groups=groups, sweep=sweep)
    if folder := flags.get("--config-dir"):
        wanted.insert(0, f"hydra.searchpath=[{quoted(str(Path(folder).absolute()))}]")
    configs = Path(flags.get("--config-path", CONFIGS)).absolute()
    try:
        _require_sound_yamls(yaml, groups, flags, overrides)
        with hydra.initialize_config_dir(str(configs), version_base="1.3", job_name=config_name):
            outcomes = _outcomes(flags.get("--config-name", config_name), _job(main), flags, wanted, sweep=sweep)
    # No job raises one. Of whatever kind it is, it comes from the YAMLs or the command line; in a sweep, perhaps from a
    # launcher.
    except Exception as error:
        if sweep or isinstance(error, _MISTAKES):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"the configuration must be one that Hydra can compose; {reason}") from error
    codes = [0]
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        codes.append(outcome)
    return max(codes)


def _outcomes(
    config_name: str, job: Callable[[DictConfig], Outcome], flags: Mapping[str, str], wanted: list[str], *, sweep: bool
) -> list[Outcome]:
    """Does what the flags ask Hydra for.

    Returns:
        What became of each job.
    """
    application = GlobalHydra.instance().hydra
    overrides = [*_QUIET, *wanted]
    if "--version" in flags:
        show(f"Hydra {hydra.__version__}\n")
    elif "--hydra-help" in flags:
        application.hydra_help(config_name, get_args_parser(), Namespace(overrides=overrides))
    elif "--cfg" in flags:
        resolve = "--resolve" in flags
        application.show_cfg(config_name, overrides, flags["--cfg"], flags.get("--package"), resolve=resolve)
    elif "--resolve" in flags:
        raise UserError("--resolve must stand beside --cfg, whose values it fills in")
    elif "--info" in flags:
        application.show_info(flags["--info"], config_name, overrides)
    elif not sweep:
        return [application.run(config_name, job, overrides).return_value]
    else:
        try:
            folder = tempfile.TemporaryDirectory()
        except OSError as error:
            raise UserError(f"TMPDIR must name a folder that can be written; got {error.strerror}") from None
        # Hydra keeps an account of a sweep, whose place can be moved but not be empty.
        with folder as account:
            place = [f"hydra.sweep.dir={quoted(account)}", "hydra.sweep.subdir=."]
            fixed = [fixed_in_a_sweep(wanted), "hydra.mode=MULTIRUN"]
            batches = application.multirun(config_name, job, [*_QUIET, *place, *wanted, *fixed])
        return [each.return_value for batch in batches for each in batch]
    return []


def _job(main: Main) -> Callable[[DictConfig], Outcome]:
    """What Hydra is to run, once or for each job of a sweep, perhaps in other processes."""
    codes: list[int] = []

    def job(config: DictConfig) -> Outcome:
        interrupted = False

        def print_result() -> int:
            nonlocal interrupted
            result = main(_with_attention(config))
            interrupted = bool(result.get("interrupted"))
            print_json({"overrides": list(job_overrides()), **result} if in_a_sweep() else result)
            return 0

        try:
            codes.append(_exit_code(print_result))
        # A fault of ours, of whatever kind, comes back as a value: a launcher's other processes would lose it.
        except Exception as fault:  # noqa: BLE001
            fault.add_note(f"in the job {' '.join(job_overrides())}")
            return fault
        if interrupted or codes[-1] == INTERRUPTED:
            raise _EndOfSweep(max(codes))
        return codes[-1]

    return job


def _exit_code(action: Callable[[], int]) -> int:
    """The exit code that an action returns, or that belongs to how it ended, said in one line on stderr."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        return action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except _EndOfSweep as end:
        return int(end.args[0])
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except _MISTAKES as error:
        if wants_traceback:
            traceback.print_exc()
        print(f"error: {printable(_one_line(error)[:LONGEST_MESSAGE])}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if wants_traceback or not is_exhaustion(error):
            raise
        print(f"error: memory ran out ({' '.join(str(error).split())})", file=sys.stderr)
    return 2


def _end_with_parent(parent: int) -> None:
    # Asked for: only Linux tells a process that its parent has died.
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _require_sound_yamls(
    yaml: Path, groups: Mapping[str, Sequence[str]], flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Refuses YAMLs of the user's own that Hydra would read without a limit: a few lines can stand for a billion."""
    paths = [yaml]
    for key, _, value in (override.partition("=") for override in overrides):
        for name in value.split(",") if key in groups else ():
            if name in SYNTHETIC_TASKS and name not in groups[key]:
                raise UserError(one_of(key, name, groups[key]))
            paths.append(CONFIGS / key / f"{name}.yaml")
    if folder := flags.get("--config-dir"):
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir must be a folder; got {shortened(folder)}")
        paths += [path for group in ("", *groups) for path in Path(folder, group).glob("*.yaml")]
    for path in paths:
        if path.is_file():
            read_yaml(path, what="configuration")


def _with_attention(config: DictConfig) -> DictConfig:
    """Gives the chosen attention its name, and a hybrid the variants that it names."""
    typed = HydraConfig.get().overrides.task
    # OmegaConf's word for a value that has to be given is a text like any other where it was typed for one.
    missing = sorted(key for key in OmegaConf.missing_keys(config) if f"++{key}={quoted('???')}" not in typed)
    if missing:
        raise UserError(f"{missing[0]} must be given; for example {missing[0]}=VALUE")
    name = HydraConfig.get().runtime.choices.get("attention")
    if name is None or "attention" not in config:
        return config
    whole = OmegaConf.to_container(config, resolve=True)
    assert isinstance(whole, dict)
    chosen = whole["attention"]
    if not isinstance(chosen, dict) or chosen.get("name", name) != name:
        raise UserError(
            f"attention must be a mapping, without a name but that of its YAML, {name}; got {shortened(chosen)}"
        )
    expanded = expand({**{str(key): value for key, value in chosen.items()}, "name": name})
    # In place: texts that were made plain would be searched for interpolations once more.
    result = config.copy()
    OmegaConf.update(result, "attention", expanded, merge=False, force_add=True)
    return result


def _one_line(error: Exception) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return one_of(group, choice, error.options)
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0].rstrip(".")
        written = error.override.removeprefix("++")
        return f"{written} must follow Hydra's grammar; {reason} (quote special characters: 'key=\"a, b\"')"
    lines = [line.strip() for line in str(error).replace("'++", "'").splitlines()]
    said = "; ".join(line for line in lines if line)
    return said or f"the configuration must be one that Hydra can compose; {type(error.__cause__ or error).__name__}"
