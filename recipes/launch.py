"""Several processes work on one model: `launch.processes=4` starts MLX's launcher with the same command.

A training whose process died goes on from its last checkpoint, as often as it may.
"""

import contextlib
import dataclasses
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from mlx._distributed_utils.common import Hostfile

from recipes.command_line import in_quotes
from recipes.launcher import BEATS, Launch, Place
from zoo.config import UserError, require
from zoo.config.files import typed_path
from zoo.runtime.processes import Processes, connected
from zoo.runtime.watch import Watch
from zoo.training import Shard, Sharing

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """`launch` of a configuration.

    Attributes:
        processes: On this machine.
        hostfile: Of MLX's launcher, with a host for each process and perhaps a back end; None for this machine.
        patience_seconds: A process that has said nothing for so long has died.
    """

    processes: int = 1
    hostfile: str | None = None
    patience_seconds: float = 60.0

    def __post_init__(self) -> None:
        alone = self.hostfile is None or self.processes == 1
        require(alone, "launch.processes", "be 1 beside launch.hostfile", self.processes)
        require(self.number >= 1, "launch.processes", "be at least 1", self.processes)
        require(self.patience_seconds > 0, "launch.patience_seconds", "be above 0", self.patience_seconds)

    @property
    def wanted(self) -> bool:
        """Whether this process is to launch others, and not one of those that were launched."""
        return (self.processes > 1 or self.hostfile is not None) and "MLX_RANK" not in os.environ

    @property
    def number(self) -> int:
        """How many processes there are.

        Raises:
            UserError: If the hosts cannot be read.
        """
        if self.hostfile is None:
            return self.processes
        path = typed_path(self.hostfile, what="launch.hostfile")
        if not path.is_file():
            raise UserError(f"launch.hostfile must be a file; got {self.hostfile!r}")
        try:
            hosts = Hostfile.from_file(str(path)).hosts
        except ValueError as error:
            raise UserError(f"launch.hostfile must be one that MLX's launcher reads; {error}") from None
        require(len(hosts) > 0, "launch.hostfile", "name a host at least", self.hostfile)
        return len(hosts)

    @property
    def place(self) -> Place:
        """Where the processes run."""
        hosts = None if self.hostfile is None else typed_path(self.hostfile, what="launch.hostfile")
        return Place(processes=self.processes, hostfile=hosts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingLaunchConfig(LaunchConfig):
    """`launch` of what trains.

    Attributes:
        restarts: How often a run whose process has died goes on from its last checkpoint.
        shard: What each process keeps only a part of: "optimizer", its state; "weights", those of the blocks, their
            gradients and their state, which takes a back end with sum_scatter. None for nothing.
    """

    restarts: int = 0
    shard: Shard | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.restarts >= 0, "launch.restarts", "be at least 0", self.restarts)

    @property
    def sharing(self) -> Sharing:
        """Among how many processes the training is, or will be, shared out."""
        return Sharing(processes=self.number if self.wanted else connected().size, shard=self.shard)

    @property
    def at_once(self) -> int:
        """How many processes this machine has to have room for."""
        return self.processes if self.wanted else 1


def launched(config: LaunchConfig) -> dict[str, Any]:
    """Does this job with several processes, and passes on what the one that leads shows.

    Returns:
        What it has printed last.

    Raises:
        UserError: With what a process said that could not go on.
    """
    with tempfile.TemporaryDirectory() as folder:
        launch = Launch(config.place, [_patience(config)], beats=Path(folder))
    if launch.result is None:
        raise KeyboardInterrupt if launch.stopped else UserError(launch.reason)
    return launch.result


def training_launched(config: TrainingLaunchConfig, folder: Path) -> dict[str, Any]:
    """Trains in a run's folder with several processes; goes on after the death of one, as often as it may.

    Returns:
        What the process that leads has printed.

    Raises:
        UserError: With what a process said that could not go on.
    """
    own = [f"run_dir={in_quotes(str(folder))}", "resume=auto", _patience(config)]
    own += [f"launch.shard={config.shard}"] if config.shard else []
    for restart in range(config.restarts + 1):
        launch = Launch(config.place, own, beats=folder, run=folder)
        if launch.result is not None:
            return launch.result
        if launch.stopped:
            raise KeyboardInterrupt
        if not launch.died or restart == config.restarts:
            break
        logger.warning("%s; restart %d of %d", launch.reason, restart + 1, config.restarts)
    raise UserError(launch.reason)


def watched(processes: Processes, config: LaunchConfig) -> contextlib.AbstractContextManager[object]:
    """Inside, processes that `launched` has started on this machine see that the others are there, or end."""
    folder = os.environ.get(BEATS)
    if folder is None:
        return contextlib.nullcontext()
    patience, advice = config.patience_seconds, "the same command begins again"
    return Watch(processes, Path(folder), patience_seconds=patience, advice=lambda: advice)


def _patience(config: LaunchConfig) -> str:
    return f"launch.patience_seconds={config.patience_seconds}"
