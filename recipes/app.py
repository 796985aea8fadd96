"""What every script promises: Hydra overrides in, one JSON line out, and mistakes as one clear line.

Progress and logs go to stderr; the last line on stdout is one JSON object. Exit code 0 on success, 2 with one
`error: …` line on stderr for what the user can mend (with a traceback if HYDRA_FULL_ERROR=1), 1 for our own faults,
130 for an interruption before there is anything to save.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from recipes.command_line import MULTIRUN, one_of, quoted, rewritten, split_flags
from recipes.help import help_text
from recipes.job import TYPED, fixed_in_a_sweep, in_a_sweep, job_overrides
from recipes.streams import configure_logging, open_streams, print_json, show
from zoo.attention.catalog import expand
from zoo.attention.registry import external_mechanism_names, left_out_names
from zoo.config import UserError
from zoo.config.errors import LONGEST_MESSAGE, printable, shortened
from zoo.config.files import read_yaml
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.runtime.memory import is_exhaustion

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FULL_ERROR = "HYDRA_FULL_ERROR"
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


class _EndOfSweep(BaseException):
    """Leaves a sweep after an interrupted job; no Exception, for Hydra's launcher keeps those and goes on."""


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
        The exit code.
    """
    configure_logging()
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    codes: list[int] = []
    begun: list[bool] = []

    def compose_and_run() -> None:
        # In files, for a launcher may run the jobs of a sweep in processes of their own.
        with _temporary_folder() as kept:
            job = _job(main, kept, begun, wants_traceback)
            decorated = hydra.main(config_path=str(CONFIGS), config_name=config_name, version_base="1.3")(job)
            sweeps = MULTIRUN in arguments or "-m" in arguments

            def composed(flags: Sequence[str], overrides: Sequence[str]) -> None:
                try:
                    if flags or any(override.lstrip("+~").startswith("hydra") for override in overrides):
                        decorated()
                    else:
                        _run_once(job, config_name, overrides)
                # Hydra alone is called here: what it lets out before a job begins, of whatever kind, comes from the
                # YAMLs or the command line. A launcher's other processes tell nothing of when their jobs began.
                except Exception as error:
                    if begun or sweeps or isinstance(error, _MISTAKES):
                        raise
                    reason = f"{type(error).__name__}: {error}"
                    raise UserError(f"the configuration must be one that Hydra can compose; {reason}") from error

            try:
                _with_arguments(composed, config_name, arguments)
            finally:
                codes.extend(int(each.read_text(encoding="ascii")) for each in kept.iterdir())

    # Our own faults pass through with their traceback, which makes Python's exit code 1.
    return max([_guarded(compose_and_run, wants_traceback), *codes])


def _job(main: Main, codes: Path, begun: list[bool], wants_traceback: bool) -> Callable[[DictConfig], None]:
    """What Hydra is to run, once or for each job of a sweep; leaves the exit code in a file."""

    def job(config: DictConfig) -> None:
        begun.append(True)
        # Hydra would print an exception's story before ours; so none leaves the job.
        interrupted: list[bool] = []

        def print_result() -> None:
            result = main(_with_attention(config))
            if in_a_sweep():
                result = {"overrides": list(job_overrides()), **result}
            interrupted.append(bool(result.get("interrupted")))
            print_json(result)

        code = _guarded(print_result, wants_traceback)
        (codes / uuid.uuid4().hex).write_text(str(code), encoding="ascii")
        if code == INTERRUPTED or any(interrupted):
            raise _EndOfSweep

    return job


def choice_name(group: str) -> str:
    """Name of the YAML that was chosen in a config group, for use inside a recipe."""
    return str(HydraConfig.get().runtime.choices[group])


def _guarded(action: Callable[[], None], wants_traceback: bool) -> int:
    try:
        action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except _EndOfSweep:
        return 0
    except _MISTAKES as error:
        if wants_traceback:
            traceback.print_exc()
        print(f"error: {printable(_one_line(error)[:LONGEST_MESSAGE])}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if wants_traceback or not is_exhaustion(error):
            raise
        print(f"error: memory ran out ({' '.join(str(error).split())})", file=sys.stderr)
        return 2
    return 0


def _end_with_parent(parent: int) -> None:
    # Asked for: only Linux tells a process that its parent has died.
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_once(job: Callable[[DictConfig], None], config_name: str, overrides: Sequence[str]) -> None:
    """Runs a single job as Hydra does, which composes twice: first to see whether it is a single one."""
    hydra_config, before = HydraConfig.instance(), HydraConfig.instance().cfg
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3", job_name=config_name):
        loader = GlobalHydra.instance().hydra
        assert loader is not None
        config = loader.compose_config(
            config_name, [*_QUIET, *overrides], run_mode=RunMode.RUN, with_log_configuration=False
        )
        try:
            hydra_config.set_config(config)
            with read_write(config), open_dict(config):
                del config["hydra"]
            job(config)
        finally:
            hydra_config.cfg = before


def _with_arguments(
    action: Callable[[Sequence[str], Sequence[str]], None], config_name: str, arguments: Sequence[str]
) -> None:
    """Lets Hydra see the rewritten command line, and raise its errors instead of printing them."""
    flags, overrides = split_flags(arguments)
    TYPED.set(tuple(overrides))
    if "--help" in flags:
        show(help_text(config_name, CONFIGS, config_groups(config_name)))
        return
    sweep = MULTIRUN in flags
    _offer_external_mechanisms()
    wanted = rewritten(
        overrides,
        script=config_name,
        config=CONFIGS / f"{config_name}.yaml",
        groups=config_groups(config_name),
        sweep=sweep,
    )
    _require_sound_yamls(config_name, flags, overrides)
    for name in dict(override.partition("=")[::2] for override in overrides).get("data", "").split(","):
        if name in SYNTHETIC_TASKS and name not in config_groups(config_name)["data"]:
            raise UserError(one_of("data", name, config_groups(config_name)["data"]))
    before, full_error = sys.argv, os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        with _temporary_folder() as elsewhere:
            # Hydra keeps an account of a sweep, whose place can be moved but not be empty.
            place = [f"hydra.sweep.dir={quoted(str(elsewhere))}", "hydra.sweep.subdir=."]
            for_sweep = [*place, fixed_in_a_sweep(wanted)] if sweep else []
            sys.argv = [before[0], *flags, *_QUIET, *for_sweep, *wanted]
            action(flags, wanted)
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = full_error


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise UserError(f"TMPDIR must name a folder that can be written; got {error.strerror}") from None
    with folder as name:
        yield Path(name)


def config_groups(script: str) -> dict[str, list[str]]:
    """The choices that a script has in each config group."""
    groups = {path.name: sorted(yaml.stem for yaml in path.glob("*.yaml")) for path in CONFIGS.iterdir()}
    if script == "finetune":
        # Their tokens are no text, and no checkpoint's.
        groups["data"] = [name for name in groups["data"] if name not in SYNTHETIC_TASKS]
    names = sorted({*groups["attention"], *external_mechanism_names()})
    return {**{group: choices for group, choices in groups.items() if choices}, "attention": names}


def _require_sound_yamls(config_name: str, flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Refuses YAMLs of the user's own that Hydra would read without a limit: a few lines can stand for a billion."""
    written = dict(override.partition("=")[::2] for override in overrides)
    chosen = [CONFIGS / f"{config_name}.yaml"]
    chosen += [
        CONFIGS / group / f"{written[group]}.yaml"
        for group in config_groups(config_name)
        if written.get(group, "").isidentifier()
    ]
    for folder in (Path(flag.partition("=")[2]) for flag in flags if flag.startswith("--config-dir=")):
        chosen += [
            *folder.glob("*.yaml"),
            *(path for group in config_groups(config_name) for path in folder.glob(f"{group}/*.yaml")),
        ]
    for path in chosen:
        if path.is_file():
            read_yaml(path, what="configuration")


def _offer_external_mechanisms() -> None:
    # Those left out too: who asks for one is told why.
    for name in (*external_mechanism_names(), *left_out_names()):
        ConfigStore.instance().store(group="attention", name=name, node={"mechanism": name})


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
