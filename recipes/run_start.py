"""Where a training works: its run's folder, entered by one process and shared by all that train together."""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from recipes.job import Job
from recipes.launch import TrainingLaunchConfig, training_launched
from zoo.checkpoints import History
from zoo.config import UserError
from zoo.runtime.processes import Processes, connected, require_divisible
from zoo.runtime.watch import Watch
from zoo.training import RunFolder, TrainingConfig


class _Recipe(Protocol):
    @property
    def resume(self) -> Literal["auto", "never"]: ...
    @property
    def launch(self) -> TrainingLaunchConfig: ...


class _Plan(Protocol):
    @property
    def recipe(self) -> _Recipe: ...
    @property
    def training(self) -> TrainingConfig: ...


Plan = TypeVar("Plan", bound=_Plan)


def in_run_folder(
    job: Job,
    *,
    check: Callable[[Mapping[str, Any]], Plan],
    facts: Callable[[Plan, Job], tuple[str, ...]],
    work: Callable[[Plan, Job, RunFolder], dict[str, Any]],
) -> dict[str, Any]:
    """Opens the folder of a job and works there: a new run, or one that goes on by the settings it has.

    Of several processes that train together one enters the folder; the others read what the run has saved. Where they
    are still to be launched, this one only looks whether they may be.

    Args:
        job: As it was asked for.
        check: Makes a plan of the configuration, or refuses it.
        facts: What names a new folder under `runs/`, after the time.
        work: Trains; its result is returned.

    Raises:
        UserError: As `check` and `work` do, and if the folder holds a run that is not to go on.
    """
    path = job.folder()
    resumes = path is not None and job.config["resume"] == "auto" and RunFolder(path).holds_run
    if path is not None and resumes:
        job = job.going_on(path)
    try:
        plan = check(job.config)
    except UserError as error:
        if not resumes:
            raise
        raise UserError(f"{error} (settings are those of the run in {str(path)!r}, and what was typed)") from None
    training, launch = plan.training, plan.recipe.launch
    entered = _entered(path, lambda now: job.name(now, *facts(plan, job)), resume=plan.recipe.resume)
    if launch.wanted:
        require_divisible(training.batch_size, training.accumulation, launch.number)
        # Only tried: the process that leads will enter it.
        with entered as folder:
            pass
        try:
            return training_launched(launch, folder.path)
        except BaseException:
            folder.take_away()
            raise
    processes = connected()
    require_divisible(training.batch_size, training.accumulation, processes.size)
    with _shared(processes, entered) as folder, _watched(processes, folder, launch):
        return work(plan, job, folder)


@contextlib.contextmanager
def _entered(path: Path | None, name: Callable[[str], str], *, resume: str) -> Iterator[RunFolder]:
    """The folder of a run, or a new one with a name that is made of the time, held while inside."""
    if path is None:
        folder = RunFolder.claimed(Path("runs"), name(datetime.datetime.now().strftime("%Y%m%d-%H%M%S")))
    else:
        folder = RunFolder(path)
    with folder:
        if folder.holds_run and resume == "never":
            raise UserError(f"run_dir must be a new folder, or resume be auto; got {str(path)!r}, which holds a run")
        yield folder


@contextlib.contextmanager
def _shared(processes: Processes, entered: contextlib.AbstractContextManager[RunFolder]) -> Iterator[RunFolder]:
    """The folder that the process that leads enters, on all; they have looked at it before then."""
    if not processes.leads:
        place = processes.told("")
        if not place:
            # The process that leads says why.
            raise SystemExit(2)
        yield RunFolder(Path(place))
        return
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(entered)
        except UserError:
            processes.told("")
            raise
        Watch.forget(folder.path)
        processes.told(str(folder.path))
        yield folder


def _watched(processes: Processes, folder: RunFolder, launch: TrainingLaunchConfig) -> Watch:
    def advice() -> str:
        newest = History(folder.checkpoints).newest()
        saved = "no checkpoint was saved before" if newest is None else f"the last checkpoint is {newest}"
        return f"{saved}; run_dir={folder.path} resume=auto goes on from there"

    return Watch(processes, folder.path, patience_seconds=launch.patience_seconds, advice=advice)
