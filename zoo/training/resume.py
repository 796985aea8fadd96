"""Going on with a run: its newest checkpoint goes back into model, optimizer and random generator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.optimizers import Optimizer

from zoo.checkpoints import History, VerifiedFiles, read_config, restore_model, restore_optimizer
from zoo.checkpoints.save import TRAINING_STATE
from zoo.config import UserError
from zoo.training.state import TrainingState, require_same_configuration


def resume_run(
    checkpoints: Path, *, model: nn.Module, optimizer: Optimizer, run_config: Mapping[str, Any]
) -> TrainingState:
    """Restores the newest checkpoint of a run, bit for bit.

    Args:
        checkpoints: Folder of the run's checkpoints.
        model: Gets the weights.
        optimizer: Gets its state.
        run_config: The configuration asked for; must be the run's, but for what may change.

    Returns:
        The state to go on from; a fresh one if the run was ended before its first checkpoint.

    Raises:
        UserError: If the checkpoint is damaged, or the configuration differs.
    """
    history = History(checkpoints)
    newest = history.newest()
    if newest is None:
        return TrainingState()
    with VerifiedFiles(newest) as files:
        require_same_configuration(read_config(files).run, run_config)
        restore_model(model, files)
        restore_optimizer(optimizer, files)
        where = f"checkpoint: {newest / TRAINING_STATE}"
        state = TrainingState.restore(files.mapping(TRAINING_STATE), path=where)
    if history.path(state.step) != newest:
        raise UserError(f"{where}: step must be that of its folder's name; got {state.step}")
    return state
