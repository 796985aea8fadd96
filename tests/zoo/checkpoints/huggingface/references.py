"""The stored references: tiny checkpoints, and what transformers computes of them."""

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

PRETRAINED = Path(__file__).resolve().parents[3] / "references" / "pretrained"
NAMES = sorted(path.name for path in PRETRAINED.iterdir())
ENCODERS = [name for name in NAMES if name.startswith("bert")]
LANGUAGE_MODELS = [name for name in NAMES if name not in ENCODERS]
# The largest difference in a logit that counts as equal in float32; planted misreadings are off by a hundred times.
PARITY = 1e-4


def model_folder(name: str) -> Path:
    return PRETRAINED / name / "model"


def expected(name: str) -> dict[str, Any]:
    with np.load(PRETRAINED / name / "expected.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def copied(name: str, place: Path) -> Path:
    return shutil.copytree(model_folder(name), place / name)


def difference(ours: mx.array, theirs: np.ndarray, where: Any = ...) -> float:
    """The largest, over the rows that count."""
    return float(np.abs(np.array(ours) - theirs)[where].max())
