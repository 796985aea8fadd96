"""Checkpoints: verified folders of safetensors, JSON and a manifest; nothing in them is ever executed."""

from zoo.checkpoints.history import History
from zoo.checkpoints.load import (
    LoadedCheckpoint,
    content_name,
    load_checkpoint,
    load_model,
    load_whole,
)
from zoo.checkpoints.manifest import VerifiedFiles, verify_manifest
from zoo.checkpoints.opening import find_checkpoint, identity_of, open_checkpoint, read_config, section
from zoo.checkpoints.published import locate
from zoo.checkpoints.restore import restore_model, restore_optimizer
from zoo.checkpoints.save import save_checkpoint
from zoo.checkpoints.surgery import Surgery, exchanged, swap_attention

__all__ = [
    "History",
    "LoadedCheckpoint",
    "Surgery",
    "VerifiedFiles",
    "content_name",
    "exchanged",
    "find_checkpoint",
    "identity_of",
    "load_checkpoint",
    "load_model",
    "load_whole",
    "locate",
    "open_checkpoint",
    "read_config",
    "restore_model",
    "restore_optimizer",
    "save_checkpoint",
    "section",
    "swap_attention",
    "verify_manifest",
]
