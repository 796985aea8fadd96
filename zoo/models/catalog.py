"""The models that there are: one YAML each in `configs/model/`."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import require
from zoo.config.files import read_yaml_mapping

_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "model"


def model_names() -> tuple[str, ...]:
    """Names that `model=` accepts, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@functools.cache
def shipped_model(name: str | None) -> Mapping[str, Any]:
    """What the YAML of a model says: family and sizes.

    Raises:
        UserError: If there is no such model; lists those there are.
    """
    require(name in model_names(), "models", "be in configs/model", name, allowed=model_names())
    return read_yaml_mapping(_FOLDER / f"{name}.yaml", what="models")
