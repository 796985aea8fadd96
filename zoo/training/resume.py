"""Going on with a run: its newest checkpoint goes back into model, optimizer and random generator."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.optimizers import Optimizer

from zoo.checkpoints import History, read_config, restore_model, restore_optimizer, verify_manifest
from zoo.checkpoints.save import TRAINING_STATE
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
    newest = History(checkpoints).newest()
    if newest is None:
        return TrainingState()
    verify_manifest(newest)
    require_same_configuration(read_config(newest)["run"], run_config)
    restore_model(model, newest)
    restore_optimizer(optimizer, newest)
    return TrainingState.restore(json.loads((newest / TRAINING_STATE).read_text(encoding="utf-8")))
