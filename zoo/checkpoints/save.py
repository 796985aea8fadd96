"""Writes checkpoints: beside their place, forced to the disk, then renamed; a kill leaves the previous one whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from zoo.checkpoints.manifest import write_manifest
from zoo.checkpoints.schemes import schemes_of
from zoo.checkpoints.tensors import write_tensors
from zoo.config import UserError, to_mapping
from zoo.config.folders import new_folder
from zoo.data.tokenizers import Tokenizer

CONFIG = "config.json"
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
TRAINING_STATE = "training_state.json"
FORMAT = "attention-zoo"
FORMAT_VERSION = 1


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    tokenizer: Tokenizer | None = None,
    optimizer_state: Mapping[str, Any] | None = None,
    training_state: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Saves a model, and what is needed to go on training it, as a new folder.

    Args:
        folder: Where the checkpoint shall stand; must not exist yet.
        model: Model of `zoo.models`; its `config` says how to build it again. Of one with adapters, these alone are
            saved, beside where their base is.
        tokenizer: Saved into the same folder, so that the checkpoint can be used by itself.
        optimizer_state: That of an optimizer of `mlx.optimizers`, for resuming.
        training_state: JSON-ready facts of the training run, for resuming.
        config: JSON-ready facts to keep with the model, such as the run's whole configuration.

    Returns:
        The folder.

    Raises:
        UserError: If the folder exists, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"checkpoint: {folder} must be a new folder; it exists")
    try:
        with new_folder(folder) as partial:
            adapted: dict[str, Any] = {}
            if model.adapters is None:
                write_tensors(partial / MODEL, dict(tree_flatten(model.parameters())))
                schemes = schemes_of(model)
                adapted = {"quantized": schemes} if schemes else {}
            else:
                # Late: few checkpoints have adapters, and mlx-lm's take a while to import.
                from zoo.checkpoints.adapters import write_adapters

                write_adapters(partial, model)
                adapted = {"adapters": to_mapping(model.adapters)}
            if optimizer_state is not None:
                write_tensors(partial / OPTIMIZER, dict(tree_flatten(optimizer_state)))
            if training_state is not None:
                write_json(partial / TRAINING_STATE, training_state)
            if tokenizer is not None:
                tokenizer.save(partial)
            head = {"format": FORMAT, "format_version": FORMAT_VERSION, "has_tokenizer": tokenizer is not None}
            described = {"model": model.config.as_mapping(), "run": dict(config or {}), **adapted}
            write_json(partial / CONFIG, {**head, **described})
            write_manifest(partial)
    except OSError as error:
        raise UserError(f"checkpoint: {folder} must be writable; {error.strerror or error}") from error
    return folder


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON; every float comes back bit for bit."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
