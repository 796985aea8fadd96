"""Reads checkpoints: verified first, then built, then filled; another attention can take the place of the saved one."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.nn as nn

from zoo.attention import LayerPattern, VariantConfig
from zoo.attention.catalog import variant
from zoo.checkpoints import gguf, huggingface
from zoo.checkpoints.manifest import MANIFEST, VerifiedFiles
from zoo.checkpoints.opening import SavedConfig, exists, open_checkpoint, read_config
from zoo.checkpoints.published import locate
from zoo.checkpoints.restore import restore_model
from zoo.checkpoints.save import CONFIG, FORMAT, MODEL, OPTIMIZER, TRAINING_STATE
from zoo.checkpoints.schemes import quantize_layers, schemes_from
from zoo.checkpoints.surgery import exchanged
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import open_regular
from zoo.data.tokenizers import Tokenizer, has_tokenizer, load_tokenizer
from zoo.models import BertConfig, Model, ModelConfig, build_model, model_config_from_mapping
from zoo.runtime.memory import require_room

# What can be put in the place of a checkpoint's attention: a variant, or its name.
Exchange = str | VariantConfig | LayerPattern | None
# Adapters on a base that has adapters itself, and so on; what names itself has no end.
_MOST_STACKED = 8


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
    folder: str | Path,
    *,
    attention: Exchange = None,
    layers: Sequence[int] | None = None,
    allow_large: bool = False,
    replaced: bool = False,
) -> LoadedCheckpoint:
    """Loads a checkpoint: one of ours after checking every byte, a model in Hugging Face's layout, or a GGUF file.

    Args:
        folder: A checkpoint, or the folder of a run, which stands for its newest checkpoint, or a model of one of
            `zoo.checkpoints.huggingface`'s families, or a GGUF file of a Llama.
        attention: Another attention, as a variant or its name, put in as `swap_attention` does; None keeps the saved
            one.
        layers: Numbers of the layers that get it; None for all.
        allow_large: Whether to load what will not fit into memory.
        replaced: Whether the caller exchanges the attention of all layers, so that the saved one may be computed by
            another implementation where this machine lacks its own; so it is with `attention` for all layers.

    Raises:
        UserError: If it is no checkpoint, is damaged (names the file), or does not fit into memory; and as
            `swap_attention`.
    """
    replaced = replaced or (attention is not None and layers is None)
    return _exchanged(_load(Path(folder), allow_large=allow_large, replaced=replaced), attention, layers)


def load_whole(
    path_or_hub_id: str | Path,
    *,
    attention: Exchange = None,
    layers: Sequence[int] | None = None,
    allow_large: bool = False,
    replaced: bool = False,
) -> LoadedCheckpoint:
    """Loads a checkpoint, from a folder or from the Hub, as a model of its own weights: adapters are put into them.

    Args:
        path_or_hub_id: A checkpoint, a run's folder, or a Hub id.
        attention: As for `load_checkpoint`.
        layers: As for `load_checkpoint`.
        allow_large: As for `load_checkpoint`.
        replaced: As for `load_checkpoint`.

    Raises:
        UserError: As `load_checkpoint`, and if nothing is found there.
    """
    replaced = replaced or (attention is not None and layers is None)
    loaded = _load_whole(path_or_hub_id, allow_large=allow_large, replaced=replaced)
    return _exchanged(loaded, attention, layers)


def load_model(
    path_or_hub_id: str | Path,
    attention: Exchange = None,
    *,
    layers: Sequence[int] | None = None,
    allow_large: bool = False,
) -> tuple[nn.Module, Tokenizer]:
    """Loads a model and its tokenizer from a folder or a file, or from the Hugging Face Hub if there is none.

    Args:
        path_or_hub_id: What `locate` finds: a checkpoint, a run's folder, a model in Hugging Face's layout, a GGUF
            file, `smollm`, or a Hub id.
        attention: As for `load_checkpoint`.
        layers: As for `load_checkpoint`.
        allow_large: Whether to load what will not fit into memory.

    Returns:
        `(model, tokenizer)`; `model(tokens_BL)` gives logits [B, L, V].

    Raises:
        UserError: If nothing is found there, it is damaged or holds no tokenizer; and as `swap_attention`.
    """
    loaded = load_checkpoint(locate(path_or_hub_id), attention=attention, layers=layers, allow_large=allow_large)
    if loaded.tokenizer is None:
        raise UserError(f"checkpoint: {loaded.folder} must hold a tokenizer; it was saved without one")
    return loaded.model, loaded.tokenizer


def _exchanged(loaded: LoadedCheckpoint, attention: Exchange, layers: Sequence[int] | None) -> LoadedCheckpoint:
    chosen = variant(attention) if isinstance(attention, str) else attention
    model, _ = exchanged(cast(Model, loaded.model), chosen, layers)
    return dataclasses.replace(loaded, model=model)


def _load_whole(
    path_or_hub_id: str | Path, *, allow_large: bool, stacked: int = 0, replaced: bool = False
) -> LoadedCheckpoint:
    loaded = _load(locate(path_or_hub_id), allow_large=allow_large, stacked=stacked, replaced=replaced)
    if loaded.model.adapters is not None:
        from zoo.models.adapters import fuse_adapters

        fuse_adapters(loaded.model)
    return loaded


def _load(path: Path, *, allow_large: bool, stacked: int = 0, replaced: bool = False) -> LoadedCheckpoint:
    if gguf.is_file(path):
        return _load_gguf(path, allow_large=allow_large)
    foreign = _foreign_config(path)
    if foreign is not None:
        return _load_foreign(path, foreign, allow_large=allow_large)
    with open_checkpoint(path) as files:
        saved = read_config(files)
        where = f"checkpoint: {files.folder / CONFIG}"
        try:
            config = model_config_from_mapping(saved.model)
            if replaced:
                # How the attention that goes was computed does not matter.
                config = dataclasses.replace(config, attention=config.attention.computed_here())
            model: Any = build_model(config) if saved.adapters is None else None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if model is None:
            model = _adapted(files, saved, config, allow_large=allow_large, stacked=stacked + 1, replaced=replaced)
        else:
            if saved.quantized is not None:
                quantize_layers(model, schemes_from(saved.quantized, where=where), where=where)
            weights = f"checkpoint: {files.folder / MODEL}"
            size = os.fstat(files.stream(MODEL).fileno()).st_size
            require_room(size, weights, allow_large=allow_large, remedy="free memory")
        restore_model(model, files)
        model.eval()
        tokenizer = _tokenizer(files) if saved.has_tokenizer else None
        if tokenizer is not None:
            tokenizer = _within(tokenizer, model, where)
        return LoadedCheckpoint(
            model=model,
            tokenizer=tokenizer,
            training_state=files.mapping(TRAINING_STATE) if TRAINING_STATE in files else None,
            config=saved.run,
            folder=files.folder,
        )


def _adapted(
    files: VerifiedFiles, saved: SavedConfig, config: ModelConfig, *, allow_large: bool, stacked: int, replaced: bool
) -> Any:
    """The base of a checkpoint of adapters, with adapters to be filled."""
    from zoo.checkpoints.adapters import adapters_from_mapping, weights_fingerprint
    from zoo.models.adapters import attach_adapters
    from zoo.models.classification import as_classifier

    where = f"checkpoint: {files.folder / CONFIG}"
    assert saved.adapters is not None
    adapters = adapters_from_mapping(saved.adapters, path=f"{where}: adapters")
    if stacked > _MOST_STACKED:
        raise UserError(f"{where}: adapters.base must not lead from base to base more than {_MOST_STACKED} times")
    try:
        loaded = _load_whole(adapters.base, allow_large=allow_large, stacked=stacked, replaced=replaced)
        if cast(Model, loaded.model).config.attention != config.attention:
            loaded = _exchanged(loaded, config.attention, None)
        model: Any = loaded.model
        if config.classifies:
            model = as_classifier(model, cast(BertConfig, config).labels or ())
    except UserError as error:
        raise UserError(f"{where}: adapters.base must be the checkpoint that was adapted; {error}") from None
    if weights_fingerprint(model, without=adapters.whole) != adapters.base_fingerprint:
        raise UserError(
            f"{where}: adapters.base must be the checkpoint that was adapted; {shortened(adapters.base)} has other "
            "weights"
        )
    try:
        attach_adapters(model, adapters)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return model


def _tokenizer(files: VerifiedFiles) -> Tokenizer:
    with files.copied(without=(MODEL, OPTIMIZER, TRAINING_STATE)) as folder:
        # Earlier versions did not save how texts begin, and imported no models.
        return load_tokenizer(folder, trained_here=True)


def _within(tokenizer: Tokenizer, model: Any, where: str) -> Tokenizer:
    try:
        return tokenizer.within(model.config.vocab_size)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def content_name(folder: Path) -> bytes:
    """Names the content of a checkpoint that was loaded: its manifest, or the sums of a foreign one's files."""
    if gguf.is_file(folder):
        with open_regular(folder, what="checkpoint") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    manifest = folder / MANIFEST
    return manifest.read_bytes() if exists(manifest) else huggingface.content_sums(folder)


def _foreign_config(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a model in Hugging Face's layout; None of anything else."""
    if exists(folder / MANIFEST) or not huggingface.is_folder(folder):
        return None
    config = huggingface.read_config(folder)
    return None if config.get("format") == FORMAT else config


def _load_foreign(folder: Path, config: dict[str, Any], *, allow_large: bool) -> LoadedCheckpoint:
    # First, because transformers reads the config too, to find the tokenizer's class, and names its faults worse.
    model = huggingface.load_folder(folder, config, allow_large=allow_large)
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    if tokenizer is not None:
        tokenizer = _within(tokenizer, model, f"checkpoint: {folder / CONFIG}")
    return LoadedCheckpoint(model=model, tokenizer=tokenizer, training_state=None, config={}, folder=folder)


def _load_gguf(path: Path, *, allow_large: bool) -> LoadedCheckpoint:
    model, tokenizer = gguf.load_file(path, allow_large=allow_large)
    return LoadedCheckpoint(model=model, tokenizer=tokenizer, training_state=None, config={}, folder=path)
