"""Reads checkpoints: verified first, then built, then filled; another attention can take the place of the saved one."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from zoo.attention import LayerPattern, VariantConfig
from zoo.attention.catalog import variant
from zoo.checkpoints.history import History
from zoo.checkpoints.manifest import MANIFEST, verify_manifest
from zoo.checkpoints.save import CONFIG, FORMAT, FORMAT_VERSION, MODEL, OPTIMIZER, TRAINING_STATE
from zoo.config import UserError
from zoo.data.tokenizers import Tokenizer, load_tokenizer
from zoo.models import build_model, model_config_from_mapping

RUN_CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A checkpoint in memory.

    Attributes:
        model: The model with its weights, in evaluation mode.
        tokenizer: Its tokenizer, or None if none was saved.
        training_state: Facts of the training run, or None if none were saved.
        config: What `save_checkpoint` was given as `config`.
        folder: Where it came from.
    """

    model: nn.Module
    tokenizer: Tokenizer | None
    training_state: dict[str, Any] | None
    config: dict[str, Any]
    folder: Path


def load_checkpoint(
    folder: str | Path, *, attention: str | VariantConfig | LayerPattern | None = None
) -> LoadedCheckpoint:
    """Loads a checkpoint after checking every byte of it.

    Args:
        folder: A checkpoint, or the folder of a run, which stands for its newest checkpoint.
        attention: Another attention for the same weights, as a variant or its name; None keeps the saved one.

    Raises:
        UserError: If it is no checkpoint, is damaged (names the file), or its weights do not fit the attention.
    """
    folder = find_checkpoint(Path(folder))
    verify_manifest(folder)
    saved = read_config(folder)
    mapping = dict(saved["model"])
    if attention is not None:
        chosen = variant(attention) if isinstance(attention, str) else attention
        mapping["attention"] = chosen.as_mapping()
    model = build_model(model_config_from_mapping(mapping, path=f"checkpoint {folder / CONFIG}: model"))
    restore_model(model, folder)
    model.eval()
    state = folder / TRAINING_STATE
    return LoadedCheckpoint(
        model=model,
        tokenizer=load_tokenizer(folder) if saved["has_tokenizer"] else None,
        training_state=json.loads(state.read_text(encoding="utf-8")) if state.is_file() else None,
        config=saved["run"],
        folder=folder,
    )


def load_model(
    path_or_hub_id: str | Path, attention: str | VariantConfig | LayerPattern | None = None
) -> tuple[nn.Module, Tokenizer]:
    """Loads a model and its tokenizer from a folder, or from the Hugging Face Hub if there is no such folder.

    Args:
        path_or_hub_id: A checkpoint, a run's folder, or a Hub id such as `name/model`.
        attention: Another attention for the same weights, as a variant or its name; None keeps the saved one.

    Returns:
        `(model, tokenizer)`; `model(tokens_BL)` gives logits [B, L, V].

    Raises:
        UserError: If nothing is found there, it is damaged or holds no tokenizer, or its weights do not fit.
    """
    path = Path(path_or_hub_id)
    folder = path if path.exists() else _download(str(path_or_hub_id))
    loaded = load_checkpoint(folder, attention=attention)
    if loaded.tokenizer is None:
        raise UserError(f"checkpoint: {loaded.folder} must hold a tokenizer; it was saved without one")
    return loaded.model, loaded.tokenizer


def restore_model(model: nn.Module, folder: Path) -> None:
    """Gives a model the weights that were saved in a (verified) checkpoint.

    Raises:
        UserError: If names or shapes do not fit; names those that do not.
    """
    path = folder / MODEL
    arrays = _arrays(path)
    wanted = dict(tree_flatten(model.parameters()))
    missing, extra = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or extra:
        lines = [
            f"{what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise UserError(f"checkpoint: {path} must hold exactly the model's parameters; {'; '.join(lines)}")
    for name, array in wanted.items():
        if arrays[name].shape != array.shape:
            raise UserError(f"checkpoint: {path}: {name} must have shape {array.shape}; got {arrays[name].shape}")
    model.load_weights(list(arrays.items()), strict=True)
    mx.eval(model.parameters())


def restore_optimizer(optimizer: Optimizer, folder: Path) -> None:
    """Gives an initialised optimizer the state that was saved in a (verified) checkpoint.

    Raises:
        UserError: If the checkpoint was saved without one, or with that of another optimizer.
    """
    path = folder / OPTIMIZER
    if not path.is_file():
        raise UserError(f"checkpoint: {path} must exist to go on training; it was saved without an optimizer")
    saved = _arrays(path)
    names = list(dict(tree_flatten(optimizer.state)))
    if saved.keys() != set(names):
        raise UserError(f"checkpoint: {path} must hold the state of this optimizer; its arrays have other names")
    # In the optimizer's own order: a resumed run must build the very graph of an uninterrupted one.
    optimizer.state = tree_unflatten([(name, saved[name]) for name in names])
    mx.eval(optimizer.state)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path stands for: itself, or the newest one of a run's folder.

    Raises:
        UserError: If there is none.
    """
    if (path / MANIFEST).is_file():
        return path
    newest = History(path / RUN_CHECKPOINTS).newest()
    if newest is not None:
        return newest
    if not path.is_dir():
        raise UserError(f"checkpoint: {path} must be the folder of a checkpoint or of a run; there is no such folder")
    raise UserError(f"checkpoint: {path} must be the folder of a checkpoint or of a run; it holds no {MANIFEST}")


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a verified checkpoint.

    Raises:
        UserError: If another library or a newer version wrote it.
    """
    path = folder / CONFIG
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"checkpoint: {path} must be readable JSON") from None
    if not isinstance(saved, Mapping) or saved.get("format") != FORMAT:
        raise UserError(f"checkpoint: {path} must be written by Attention Zoo (format {FORMAT!r})")
    if saved["format_version"] != FORMAT_VERSION:
        raise UserError(f"checkpoint: {path}: format_version must be {FORMAT_VERSION}; got {saved['format_version']!r}")
    return dict(saved)


def _arrays(path: Path) -> dict[str, mx.array]:
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    return arrays


def _download(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id))
    except HFValidationError:
        raise UserError(f"checkpoint: {hub_id!r} must be a folder or a Hub id; there is no such folder") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"checkpoint: {hub_id!r} is no folder here, and the Hub did not give it: {reason}") from None
