"""Carries out a comparison's runs: several at a time here, or as the jobs of one of Hydra's launchers.

`hydra/launcher=NAME` with the launcher's own settings, without `--multirun`, has it carry out the runs: side by side on
this machine (joblib) or on a cluster (submitit). The comparison itself stays one process, which waits for them.
"""

import concurrent.futures
import copy
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import open_dict, read_write
from tqdm import tqdm

from recipes.command_line import quoted
from recipes.comparison_run import ComparisonRun
from recipes.scripts import DiedError, ScriptRunner, stopping_at_the_end
from zoo.config import UserError

logger = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")
# What Hydra takes where none is named: one job after the other, in this process.
_BASIC = "basic"


def carry_out_all(cells: list[ComparisonRun], what: str, jobs: int, runner: ScriptRunner) -> list[ComparisonRun]:
    """Carries out what is not finished, several at a time, and gives all of them back.

    One that dies does not end the others, and is asked for again by the same command.

    Raises:
        UserError: What was refused, at once; at the end, which have died, and of what.
    """
    waiting = [cell for cell in cells if not cell.is_finished]
    through = launcher_name()
    if waiting and through is not None:
        logger.info("%s: %d runs through the launcher %s", what, len(waiting), through)
        lost = _carried_out_elsewhere(waiting)
    else:
        lost = _carried_out_here(waiting, what, len(cells), jobs, runner)
    if lost:
        asked = "the same command asks for them again"
        raise UserError(f"{len(lost)} of {len(waiting)} runs ended without a result: {'; '.join(lost)} ({asked})")
    return cells


def _carried_out_here(
    waiting: Sequence[ComparisonRun], what: str, total: int, jobs: int, runner: ScriptRunner
) -> list[str]:
    """Carries out runs, several at a time; returns what has become of those that died."""
    lost: list[str] = []
    with (
        tqdm(total=total, initial=total - len(waiting), desc=what, file=sys.stderr, unit="run") as progress,
        concurrent.futures.ThreadPoolExecutor(max_workers=jobs) as pool,
    ):
        futures = [pool.submit(cell.carry_out, runner) for cell in waiting]
        try:
            for future in concurrent.futures.as_completed(futures):
                try:
                    future.result()
                except DiedError as death:
                    logger.warning("%s; the others go on", death)
                    lost.append(str(death))
                progress.update()
        except BaseException:
            for future in futures:
                future.cancel()
            runner.stop()
            raise
    return lost


def _carried_out_elsewhere(waiting: Sequence[ComparisonRun]) -> list[str]:
    """Carries out runs by the launcher that was chosen; returns what has become of those that died.

    Raises:
        UserError: What the first one was refused for, when all have ended.
    """
    jobs = [functools.partial(_as_job, cell) for cell in waiting]
    found = [each for each in through_launcher(jobs, waiting[0].logs / "launcher") if each is not None]
    for how, why in found:
        if how is not DiedError:
            raise KeyboardInterrupt if how is KeyboardInterrupt else UserError(why)
    return [why for _, why in found]


def _as_job(cell: ComparisonRun) -> tuple[type[BaseException], str] | None:
    """Carries out a run in a process of a launcher; returns why it could not be, if so."""
    runner = ScriptRunner(threads_each=None)
    try:
        with stopping_at_the_end(runner):
            cell.carry_out(runner)
    except (UserError, KeyboardInterrupt) as error:
        kinds = (DiedError, KeyboardInterrupt)
        return type(error) if isinstance(error, kinds) else UserError, str(error)
    return None


def launcher_name() -> str | None:
    """The launcher that was chosen for this script's jobs; None if none was."""
    name = str(HydraConfig.get().runtime.choices["hydra/launcher"])
    return None if name == _BASIC else name


def through_launcher(jobs: Sequence[Callable[[], Outcome]], folder: Path) -> list[Outcome]:
    """Has the chosen launcher call each job once, in processes of its own, and waits for all.

    Args:
        jobs: Can be pickled, as what they return; they raise nothing.
        folder: Where the launcher may leave its own files; seen by all machines that it uses.

    Returns:
        What each job has returned.

    Raises:
        Exception: Of the launcher's, if it loses a job.
    """
    place = [f"hydra.sweep.dir={quoted(str(folder))}", "hydra.sweep.subdir=."]
    config: Any = copy.deepcopy(HydraConfig.instance().cfg)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(folder), "."
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=functools.partial(_numbered, jobs), config=config
    )
    returns = launcher.launch([place for _ in jobs], initial_job_idx=0)
    return [each.return_value for each in returns]


def _numbered(jobs: Sequence[Callable[[], Outcome]], config: object) -> Outcome:
    """What Hydra calls for each job, in the process where it runs."""
    return jobs[HydraConfig.get().job.num]()
