"""Gives a model or an optimizer what a checkpoint of ours holds of it."""

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from zoo.checkpoints.manifest import VerifiedFiles
from zoo.checkpoints.save import MODEL, OPTIMIZER
from zoo.checkpoints.tensors import read_tensors
from zoo.config import UserError


def restore_model(model: nn.Module, files: VerifiedFiles) -> None:
    """Gives a model the weights that were saved in a checkpoint: to one with adapters, these.

    Raises:
        UserError: If names, shapes or dtypes do not fit, or a weight is not finite; names those that do not.
    """
    if model.adapters is not None:
        # Late: few checkpoints have adapters, and mlx-lm's take a while to import.
        from zoo.checkpoints.adapters import ADAPTERS, restore_adapters

        restore_adapters(model, files.stream(ADAPTERS), files.folder / ADAPTERS)
        return
    wanted = dict(tree_flatten(model.parameters()))
    path, what = files.folder / MODEL, "the model's parameters"
    arrays = read_tensors(files.stream(MODEL), path, wanted, what=what, same_dtypes=False)
    model.load_weights(list(arrays.items()), strict=True)
    mx.eval(model.parameters())


def restore_optimizer(optimizer: Optimizer, files: VerifiedFiles) -> None:
    """Gives an initialised optimizer the state that was saved in a checkpoint.

    Raises:
        UserError: If the checkpoint was saved without one, or with that of another optimizer.
    """
    path = files.folder / OPTIMIZER
    if OPTIMIZER not in files:
        raise UserError(f"checkpoint: {path} must exist to go on training; it was saved without an optimizer")
    wanted = dict(tree_flatten(optimizer.state))
    what = "the state of this optimizer"
    # In the optimizer's own order: a resumed run must build the very graph of an uninterrupted one.
    arrays = read_tensors(files.stream(OPTIMIZER), path, wanted, what=what, same_dtypes=True)
    optimizer.state = tree_unflatten(list(arrays.items()))
    mx.eval(optimizer.state)
