"""Finds and opens checkpoints of ours, and reads what they say of themselves."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.checkpoints.history import History
from zoo.checkpoints.manifest import MANIFEST, VerifiedFiles
from zoo.checkpoints.save import CONFIG, FORMAT, FORMAT_VERSION
from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened
from zoo.data.identity import DataIdentity, data_identity_from_mapping

RUN_CHECKPOINTS = "checkpoints"
# How often a run may drop the checkpoint that was about to be opened; opening takes less than a millisecond.
_ATTEMPTS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """`config.json` of a checkpoint.

    Attributes:
        format: Who wrote it.
        format_version: Of the checkpoint's layout.
        has_tokenizer: Whether a tokenizer was saved with the model.
        model: The model's config as a mapping.
        run: What `save_checkpoint` was given as `config`.
        adapters: Of a model with adapters, which, and what their base is; None for a whole model.
        quantized: Of a model with quantized layers, how each is; None for one without.
    """

    format: str
    format_version: int
    has_tokenizer: bool
    model: dict[str, Any]
    run: dict[str, Any]
    adapters: dict[str, Any] | None = None
    quantized: dict[str, Any] | None = None


def open_checkpoint(path: Path) -> VerifiedFiles:
    """Opens what `find_checkpoint` finds; a checkpoint that its run drops meanwhile gives way to a newer one.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    for _ in range(_ATTEMPTS):
        folder = find_checkpoint(path)
        try:
            return VerifiedFiles(folder)
        except UserError:
            if folder == path or folder.exists():
                raise
    raise UserError(f"checkpoint: {path} must keep a checkpoint for as long as it takes to open; each was dropped")


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path stands for: itself, or the newest one of a run's folder.

    Raises:
        UserError: If there is none.
    """
    if exists(path / MANIFEST):
        return path
    newest = History(path / RUN_CHECKPOINTS).newest()
    if newest is not None:
        return newest
    if not path.is_dir():
        raise UserError(f"checkpoint: {path} must be the folder of a checkpoint or of a run; there is no such folder")
    raise UserError(
        f"checkpoint: {path} must be the folder of a checkpoint or of a run; it holds no {MANIFEST}, nor the"
        f" {CONFIG} of a model in Hugging Face's layout"
    )


def read_config(files: VerifiedFiles) -> SavedConfig:
    """The `config.json` of a checkpoint.

    Raises:
        UserError: If another library or a newer version wrote it, or a field is missing or mistyped.
    """
    saved = files.mapping(CONFIG)
    where = f"checkpoint: {files.folder / CONFIG}"
    if saved.get("format") != FORMAT:
        raise UserError(f"{where} must be written by Attention Zoo (format {FORMAT!r})")
    version = saved.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise UserError(f"{where}: format_version must be {FORMAT_VERSION}; got {shortened(version)}")
    return from_mapping(SavedConfig, saved, path=where)


def exists(path: Path) -> bool:
    """Whether there is such a thing.

    Raises:
        UserError: If that cannot be told.
    """
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"checkpoint: {path} must be readable; {error.strerror}") from None


def identity_of(config: Mapping[str, Any]) -> DataIdentity | None:
    """What a checkpoint was trained on; None if it does not say.

    Raises:
        UserError: If what it says is no identity.
    """
    data = section(config, "data")
    if data.get("identity") is None:
        return None
    return data_identity_from_mapping(section(data, "identity", path="run.data."), path="checkpoint: run.data.identity")


def section(config: Mapping[str, Any], name: str, *, path: str = "run.") -> Mapping[str, Any]:
    """A section of a checkpoint's configuration, which stands under a path; empty if there is none.

    Raises:
        UserError: If it is no mapping.
    """
    found = config.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise UserError(f"checkpoint: {path}{name} must be a mapping; got {shortened(found)}")
    return found or {}
