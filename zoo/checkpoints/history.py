"""The checkpoints of one run: `step_000120/` folders, the newest few and perhaps the best.

The newest is the one of most steps.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn

from zoo.checkpoints.manifest import MANIFEST
from zoo.checkpoints.save import save_checkpoint
from zoo.config import UserError
from zoo.config.folders import PARTIAL_PREFIX
from zoo.data.tokenizers import Tokenizer

_PREFIX = "step_"
# Earlier versions kept a link of this name to the newest checkpoint; in a copied run it can be a folder.
_FORMER_LINK = "last"


class History:
    """Keeps the newest checkpoints of a run; at no moment is there none once the first was saved."""

    def __init__(self, folder: Path, *, keep: int = 1, best: int | None = None) -> None:
        """Looks at a folder; nothing is touched yet.

        Args:
            folder: Where the checkpoints stand; may not exist yet.
            keep: How many to keep, at least 1.
            best: A step whose checkpoint stays besides; None for none.
        """
        self.folder = folder
        self.keep = keep
        self.best = best

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        names = {path.name for path in self.folder.glob(f"{_PREFIX}*") if path.is_dir()}
        numbers = {int(digits) for name in names if (digits := name.removeprefix(_PREFIX)).isdecimal()}
        return sorted(number for number in numbers if self.path(number).name in names)

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
        optimizer_state: Mapping[str, Any],
        training_state: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> Path:
        """Saves the checkpoint of a step, and only then drops the oldest ones.

        Raises:
            UserError: If it cannot be written.
        """
        with self._writing():
            self._sweep()
            folder = save_checkpoint(
                self.path(step),
                model=model,
                tokenizer=tokenizer,
                optimizer_state=optimizer_state,
                training_state=training_state,
                config=config,
            )
            self._prune()
        return folder

    def tidy(self) -> None:
        """Does what a process that was killed in `save` has not come to: drops what is not kept or not whole.

        Raises:
            UserError: If it cannot be removed.
        """
        with self._writing():
            self._prune()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"checkpoint: {self.folder} must be writable; {error.strerror or error}") from error

    def _prune(self) -> None:
        doomed = [self.path(step) for step in self.steps()[: -self.keep] if step != self.best]
        former = self.folder / _FORMER_LINK
        if former.is_symlink():
            former.unlink()
        elif (former / MANIFEST).is_file():
            doomed.append(former)
        for path in doomed:
            # Renamed first: a kill during the removal must not leave half a checkpoint under a good name.
            path.rename(self.folder / f"{PARTIAL_PREFIX}{path.name}-dropped")
        self._sweep()

    def _sweep(self) -> None:
        """Removes what a killed process left unfinished."""
        for path in self.folder.glob(f"{PARTIAL_PREFIX}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
