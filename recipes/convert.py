"""Takes a model back to other tools: as a folder for transformers and mlx-lm, its adapters put into its weights."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from omegaconf import DictConfig

from recipes.speaker import plain_mapping
from zoo.attention import variant_from_mapping
from zoo.checkpoints import LoadedCheckpoint, load_whole, save_checkpoint
from zoo.checkpoints.export import Layout, export_model
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.config import UserError, from_mapping, require
from zoo.config.files import typed_path
from zoo.config.folders import new_folder
from zoo.models.adapters import fuse_adapters
from zoo.runtime.backend import choose_backend, parse_dtype

logger = logging.getLogger(__name__)

Format = Literal["huggingface", "zoo"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """`configs/convert.yaml`, composed.

    Attributes:
        checkpoint: Folder of a checkpoint or of a run, or a Hub id.
        attention: Another variant or hybrid for the same weights, or None.
        adapters: Folder of adapters to put into the weights, or None.
        out: Folder to write.
        format: What it is to be.
        dtype: Of weights that are not quantized.
        device: Back end.
        allow_large: Whether to begin what will not fit into memory.
    """

    checkpoint: str | None = None
    attention: dict[str, Any] | None = None
    adapters: str | None = None
    out: str | None = None
    format: Format = "huggingface"
    dtype: str = "auto"
    device: str = "auto"
    allow_large: bool = False

    def __post_init__(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "be the folder of a checkpoint or of a run", self.checkpoint)
        require(bool(self.out), "out", "name a new folder", self.out)
        require(self.adapters != "", "adapters", "be a folder, or null", "")


def main(config: DictConfig) -> dict[str, Any]:
    """Converts a checkpoint.

    Returns:
        The command contract's keys, and what was written.

    Raises:
        UserError: On a mistake in the configuration, a checkpoint that cannot be loaded, or a model that no other tool
            can compute; nothing is written then.
    """
    recipe = from_mapping(ConvertRecipe, plain_mapping(config), path="convert")
    choose_backend(recipe.device)
    out = _place(recipe)
    dtype = None if recipe.dtype == "auto" else parse_dtype(recipe.dtype)
    loaded = _loaded(recipe)
    model: Any = loaded.model
    layout = _write(recipe, out, loaded, dtype)
    return {
        "out": str(out),
        "format": recipe.format,
        "architecture": layout.architecture if layout else "attention_zoo",
        "model_file": layout.has_model_file if layout else False,
        "in_transformers": layout.in_transformers if layout else False,
        "attention": model.config.attention.name,
        "num_parameters": model.num_parameters(),
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "surgery": None,
    }


def _place(recipe: ConvertRecipe) -> Path:
    """Where to write, refused before any work if something is there."""
    assert recipe.out is not None
    out = typed_path(recipe.out, what="out")
    if out.is_dir() and not out.is_symlink():
        if any(out.iterdir()):
            raise UserError(f"out must be a new folder or an empty one; got {recipe.out!r}, which holds something")
    elif out.exists() or out.is_symlink():
        raise UserError(f"out must be a new folder; got {recipe.out!r}, which is something else")
    return out


def _loaded(recipe: ConvertRecipe) -> LoadedCheckpoint:
    """The model of its own weights, in the attention asked for."""
    assert recipe.checkpoint is not None
    attention = None if recipe.attention is None else variant_from_mapping(recipe.attention)
    path = typed_path(recipe.checkpoint, what="checkpoint")
    loaded = load_whole(path, attention=attention, allow_large=recipe.allow_large)
    if recipe.adapters is not None:
        load_adapters(loaded.model, typed_path(recipe.adapters, what="adapters"), base=recipe.checkpoint)
        fuse_adapters(loaded.model)
    return loaded


def _write(recipe: ConvertRecipe, out: Path, loaded: LoadedCheckpoint, dtype: mx.Dtype | None) -> Layout | None:
    """Writes the folder, whole or not at all; gives how, of what is for other tools."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if recipe.format == "zoo":
        if dtype is not None:
            model.set_dtype(dtype)
        if out.exists():
            out.rmdir()
        save_checkpoint(out, model=model, tokenizer=tokenizer, config=loaded.config)
        return None
    try:
        with new_folder(out) as folder:
            layout = export_model(folder, model, tokenizer=tokenizer, source=loaded.folder, dtype=dtype)
    except OSError as error:
        raise UserError(f"out must be a folder that can be written; got {str(out)!r} ({error.strerror})") from error
    if layout.has_model_file:
        logger.warning("mlx-lm runs this model with --trust-remote-code: the folder's Python file computes it")
    return layout
