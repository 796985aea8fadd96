"""The checkpoints of one run: `step_000120/` folders, the newest few of them, and a link `last` to the newest."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.optimizers import Optimizer

from zoo.checkpoints.save import PARTIAL_PREFIX, save_checkpoint
from zoo.data.tokenizers import Tokenizer

LAST = "last"
_PREFIX = "step_"


class History:
    """Keeps the newest checkpoints of a run; at no moment is there none once the first was saved."""

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        """Looks at a folder; nothing is touched yet.

        Args:
            folder: Where the checkpoints stand; may not exist yet.
            keep: How many to keep, at least 1.
        """
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        names = (path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"{_PREFIX}{step:06d}"

    def newest(self) -> Path | None:
        """Folder of the newest checkpoint, or None if there is none."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(
        self,
        step: int,
        *,
        model: nn.Module,
        tokenizer: Tokenizer | None,
        optimizer: Optimizer,
        training_state: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> Path:
        """Saves the checkpoint of a step, points `last` to it, and only then drops the oldest ones.

        Raises:
            UserError: If it cannot be written.
        """
        self._sweep()
        folder = save_checkpoint(
            self.path(step),
            model=model,
            tokenizer=tokenizer,
            optimizer=optimizer,
            training_state=training_state,
            config=config,
        )
        self._point(folder)
        self._prune()
        return folder

    def _point(self, folder: Path) -> None:
        link = self.folder / f"{PARTIAL_PREFIX}{LAST}"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.replace(self.folder / LAST)

    def _prune(self) -> None:
        for step in self.steps()[: -self.keep]:
            # Renamed first: a kill during the removal must not leave half a checkpoint under a good name.
            doomed = self.folder / f"{PARTIAL_PREFIX}{self.path(step).name}-dropped"
            self.path(step).rename(doomed)
        self._sweep()

    def _sweep(self) -> None:
        """Removes what a killed process left unfinished."""
        for path in self.folder.glob(f"{PARTIAL_PREFIX}*"):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)
