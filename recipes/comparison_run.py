"""One run of a comparison: a variant trained with one seed under one regime, then evaluated, once."""

import contextlib
import dataclasses
import glob
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from recipes.scripts import Script, ScriptRunner, listed
from zoo.config import UserError
from zoo.training import RunFolder

Regime = Literal["equal_tokens", "equal_seconds"]

# What would end a run before its last step, so that its tokens were not equal to another's.
WHOLE_SCHEDULE = ("training.max_seconds=null", "training.target_accuracy=null")

_BEGUN, _FINISHED, _EVALUATION = "begun.json", "finished.json", "evaluation"
# A step of a large model and writing its state may take that long.
_PATIENCE_SECONDS = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRun:
    """What to train and how to evaluate it.

    Attributes:
        variant: Name of the series.
        seed: Of weights and data order.
        regime: What is held equal.
        folder: Of the training run; the evaluation lies inside.
        overrides: Of `train.py`, apart from the folder and the seed.
        evaluation: Overrides of `evaluate.py`; None for no evaluation.
        logs: Folder of the scripts' logs.
    """

    variant: str
    seed: int
    regime: Regime
    folder: Path
    overrides: tuple[str, ...]
    evaluation: tuple[str, ...] | None
    logs: Path

    @property
    def name(self) -> str:
        """For people and for log files."""
        return f"{self.regime}-{self.variant}-seed{self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether it was trained, and evaluated as asked for now."""
        finished = self._read(_FINISHED)
        return finished is not None and finished.get("evaluation") == self._evaluation_as_kept

    @property
    def evaluation_rows(self) -> Path:
        """Where the evaluation leaves its rows."""
        return self.folder / _EVALUATION / "rows.jsonl"

    def result(self) -> dict[str, Any]:
        """What `train.py` printed, of a finished run."""
        finished = self._read(_FINISHED)
        assert finished is not None, f"{self.name} is not finished"
        return finished["train"]

    def require_same(self) -> None:
        """Refuses to go on with a run that was begun otherwise.

        Raises:
            UserError: If it had other overrides; names those that differ.
        """
        before = self._read(_FINISHED) or self._read(_BEGUN)
        if before is not None and before["overrides"] != list(self.overrides):
            changed = sorted(set(before["overrides"]) ^ set(self.overrides))
            raise UserError(
                f"run_dir must be a new folder, or hold this very comparison; {str(self.folder)!r} was made with other"
                f" overrides: {', '.join(changed)}"
            )

    def carry_out(self, runner: ScriptRunner) -> None:
        """Trains, or goes on training, and evaluates.

        Raises:
            UserError: If a script fails, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(_BEGUN, {"overrides": self.overrides})
        except OSError as error:
            raise UserError(f"run_dir must be writable; got {str(self.folder)!r} ({error.strerror})") from None
        finished = self._read(_FINISHED)
        result = self._train(runner) if finished is None else finished["train"]
        if self.evaluation is not None:
            self._evaluate(runner, self.evaluation)
        kept = {"overrides": self.overrides, "evaluation": self._evaluation_as_kept, "train": result}
        self._write(_FINISHED, kept)

    def _train(self, runner: ScriptRunner) -> dict[str, Any]:
        self._wait_until_free()
        own = (*WHOLE_SCHEDULE, f"seed={self.seed}", f"run_dir={self.folder}", "resume=auto")
        log = self.logs / f"{self.name}.train.log"
        result = runner.run(
            Script(name=f"training {self.name}", script="train.py", arguments=(*self.overrides, *own), log=log)
        )
        if result["interrupted"]:
            raise KeyboardInterrupt
        return result

    def _evaluate(self, runner: ScriptRunner, overrides: tuple[str, ...]) -> None:
        own = (f"checkpoint={self.folder}", f"run_dir={self.folder / _EVALUATION}")
        log = self.logs / f"{self.name}.evaluate.log"
        runner.run(Script(name=f"evaluating {self.name}", script="evaluate.py", arguments=(*own, *overrides), log=log))

    def _wait_until_free(self) -> None:
        """Waits for a training that outlived a killed comparison; it ends as soon as it has saved its state."""
        for _ in range(_PATIENCE_SECONDS):
            with contextlib.suppress(UserError), RunFolder(self.folder):
                return
            time.sleep(1)

    @property
    def _evaluation_as_kept(self) -> list[str] | None:
        return None if self.evaluation is None else list(self.evaluation)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        partial = self.folder / f".{name}.partial"
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
        partial.replace(self.folder / name)


def begun_steps(runs: Path, variants: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The steps that runs at equal seconds were begun with, as overrides, by variant; without those not begun yet."""
    found = {}
    for name in variants:
        for begun in sorted(runs.glob(f"{glob.escape(f'equal_seconds-{name}-seed')}*/{_BEGUN}")):
            overrides = json.loads(begun.read_text(encoding="utf-8"))["overrides"]
            # The last one counts; another was typed for the comparison.
            found[name] = tuple(each for each in overrides if each.startswith("training.steps="))[-1:]
    return found


def evaluation_overrides(
    tasks: tuple[str, ...] | None, max_batches: int | str | None, device: tuple[str, ...]
) -> tuple[str, ...] | None:
    """What `evaluate.py` is told; None where no task is wanted."""
    if tasks == ():
        return None
    limit = "null" if max_batches is None else max_batches
    return (f"max_batches={limit}", *(() if tasks is None else (f"tasks={listed(tasks)}",)), *device)
