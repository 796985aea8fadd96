"""The stages of a run that heals an exchanged attention: matching the original's layers, then learning tokens."""

import dataclasses
from typing import Any

from mlx.utils import tree_flatten

from recipes.training_run import Stage
from zoo.config import UserError
from zoo.models import Model
from zoo.training import (
    AttentionTransfer,
    DistillationConfig,
    Divergence,
    NextToken,
    Objective,
    OptimizerConfig,
    build_optimizer,
)


def healing_stages(
    distillation: DistillationConfig, optimizer: OptimizerConfig, model: Model, original: Model | None, *, steps: int
) -> tuple[Stage, ...]:
    """What is learnt one after the other, each with a schedule of its own.

    Args:
        distillation: What is learnt from the original.
        optimizer: Of every stage.
        model: With its adapters, if it has any.
        original: As `original_of` makes it; None where nothing is learnt from it.
        steps: Of the whole run.

    Raises:
        UserError: If the original has no such outputs, no layers are exchanged that could be matched, or nothing is
            trained in these.
    """
    objective: Objective = NextToken()
    if original is not None and distillation.loss == "kl":
        if model.config.classifies:
            raise UserError("distillation.loss must be next_token where texts are classified; got 'kl'")
        objective = Divergence(original, temperature=distillation.temperature)
    matching = distillation.attention_steps
    last = Stage(
        optimizer=build_optimizer(optimizer, model, steps=max(1, steps - matching)), end=steps, objective=objective
    )
    if original is None or not matching:
        return (last,)
    layers = exchanged_layers(original, model)
    if not layers:
        name = model.config.attention.name
        raise UserError(
            f"attention must be another for distillation.attention_steps; got {name!r}, as in the checkpoint"
        )
    transfer = AttentionTransfer(original, layers)
    learner = transfer.learner(model)
    if not tree_flatten(learner.trainable_parameters()):
        raise UserError("lora must leave something to train in the layers of the new attention; got nothing there")
    rate = distillation.attention_learning_rate or optimizer.learning_rate
    own = dataclasses.replace(optimizer, learning_rate=rate)
    first = Stage(optimizer=build_optimizer(own, learner, steps=matching), end=matching, objective=transfer)
    return (first, last)


def exchanged_layers(original: Any, model: Any) -> list[int]:
    """Numbers of the layers whose attention is not the original's any more."""
    before, after = original.config.attention, model.config.attention
    return [index for index in range(len(model.layers)) if before.layer(index) != after.layer(index)]
