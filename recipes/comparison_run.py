"""One run of a comparison: a variant trained with one seed under one budget, then evaluated, once."""

import contextlib
import dataclasses
import glob
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from eval.suites.series import series_named
from recipes.scripts import Script, ScriptRunner, listed
from zoo.config import UserError, from_mapping, require
from zoo.config.files import read_json_as, replace_file
from zoo.training import RunFolder

Budget = Literal["equal_tokens", "equal_seconds"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kept:
    """What `begun.json` and `finished.json` hold; earlier versions knew neither data nor clock."""

    overrides: tuple[str, ...]
    data: Mapping[str, Any] | None = None
    clock: str | None = None
    evaluation: tuple[str, ...] | None = None
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Figures:
    """What a comparison reckons with of what `train.py` printed."""

    steps: int
    val_loss: float
    val_bits_per_byte: float | None
    tokens_per_second: float | None
    peak_memory_bytes: int

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "be at least 1", self.steps)
        speed = self.tokens_per_second
        require(speed is None or speed > 0, "tokens_per_second", "be above 0", speed)


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
        budget: What is held equal.
        folder: Of the training run; the evaluation lies inside.
        overrides: Of `train.py`, apart from the folder and the seed.
        evaluation: Overrides of `evaluate.py`; None for no evaluation.
        data: Identity of the data that every run of the comparison learns from.
        clock: At equal seconds, the variant whose seconds are held equal.
        logs: Folder of the scripts' logs.
        script: What trains.
        arm: Of a checkpoint's variant, how it is mended; None for a training.
    """

    variant: str
    seed: int
    budget: Budget
    folder: Path
    overrides: tuple[str, ...]
    evaluation: tuple[str, ...] | None
    logs: Path
    data: Mapping[str, str]
    clock: str | None = None
    script: str = "train.py"
    arm: str | None = None

    @property
    def name(self) -> str:
        """For people and for log files."""
        return f"{self.arm or self.budget}-{self.variant}-seed{self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether it was trained, and evaluated as asked for now."""
        finished = self._read(_FINISHED)
        return finished is not None and finished.evaluation == self.evaluation

    @property
    def evaluation_rows(self) -> Path:
        """Where the evaluation leaves its rows."""
        return self.folder / _EVALUATION / "rows.jsonl"

    def result(self) -> dict[str, Any]:
        """What `train.py` printed, of a finished run.

        Raises:
            UserError: If a figure that is reckoned with is missing, or none.
        """
        finished = self._read(_FINISHED)
        assert finished is not None, f"{self.name} is not finished"
        names = {field.name for field in dataclasses.fields(_Figures)}
        figures = {name: value for name, value in finished.train.items() if name in names}
        from_mapping(_Figures, figures, path=f"run_dir: {self.folder / _FINISHED}: train")
        return dict(finished.train)

    def require_same(self) -> None:
        """Refuses to go on with a run that was begun otherwise; one that never came to train was not begun.

        Raises:
            UserError: If it had other overrides, which are named, or learnt from another text.
        """
        finished = self._read(_FINISHED)
        before = finished or self._read(_BEGUN)
        if before is None or (finished is None and not RunFolder(self.folder).holds_run):
            return
        if before.overrides != self.overrides:
            changed = sorted(set(before.overrides) ^ set(self.overrides))
            raise UserError(
                f"run_dir must be a new folder, or hold this very comparison; {str(self.folder)!r} was made with other"
                f" overrides: {', '.join(changed)}"
            )
        if before.data not in (None, self.data):
            raise UserError(
                f"data must be what the comparison was begun with; {str(self.folder)!r} learnt from another text: "
                "restore it, or choose a new run_dir"
            )

    def carry_out(self, runner: ScriptRunner) -> None:
        """Trains, or goes on training, and evaluates.

        Raises:
            UserError: If a script fails, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(_BEGUN, {"overrides": self.overrides, "data": self.data, "clock": self.clock})
        except OSError as error:
            raise UserError(f"run_dir must be writable; got {str(self.folder)!r} ({error.strerror})") from None
        finished = self._read(_FINISHED)
        result = self._train(runner) if finished is None else finished.train
        if self.evaluation is not None:
            self._evaluate(runner, self.evaluation)
        self._write(
            _FINISHED,
            {"overrides": self.overrides, "data": self.data, "evaluation": self.evaluation, "train": result},
        )

    def _train(self, runner: ScriptRunner) -> dict[str, Any]:
        self._wait_until_free()
        own = (*WHOLE_SCHEDULE, f"seed={self.seed}", f"run_dir={self.folder}", "resume=auto")
        log = self.logs / f"{self.name}.train.log"
        result = runner.run(
            Script(name=f"training {self.name}", script=self.script, arguments=(*self.overrides, *own), log=log)
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
            # A lock of files can be waited for without a limit or asked for, nothing between.
            time.sleep(1)

    def _read(self, name: str) -> "_Kept | None":
        path = self.folder / name
        return read_json_as(_Kept, path, what="run_dir") if path.exists() else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        replace_file(self.folder / name, json.dumps(content) + "\n")


def attention_overrides(name: str) -> tuple[str, ...]:
    """What gives a script the attention of a series of this name."""
    series = series_named(name)
    values = ((key, "null" if value is None else value) for key, value in series.changes.items())
    return (f"attention={series.shipped}", *(f"attention.{key}={value}" for key, value in values))


def machine_overrides(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """What evaluations and benchmarks are told as trainings are: where to compute, and whether to insist."""
    return tuple(override for override in overrides if override.startswith(("device=", "allow_large=")))


def benchmark_script(
    variants: Sequence[str], model: str, length: int, *, folder: Path, budget_minutes: float | None
) -> Script:
    """Times models at the length that they were trained at, so that speed and quality are of one setting.

    Args:
        variants: Names of series.
        model: Name of a YAML in configs/model.
        length: Tokens.
        folder: Of the comparison.
        budget_minutes: None for no limit.
    """
    budget = () if budget_minutes is None else (f"budget_minutes={budget_minutes}",)
    arguments = (
        f"variants={listed(variants)}",
        "levels=[model]",
        f"models=[{model}]",
        f"lengths=[{length}]",
        f"run_dir={folder / 'benchmark'}",
        *budget,
    )
    log = folder / "logs" / "benchmark.log"
    return Script(name="the benchmark", script="benchmark.py", arguments=arguments, log=log, shown=True)


def begun_steps(runs: Path, variants: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The steps that runs at equal seconds were begun with, as overrides, by variant; without those not begun yet.

    The last override of the steps counts; another was typed for the comparison.
    """
    return {
        name: tuple(each for each in kept.overrides if each.startswith("training.steps="))[-1:]
        for name in variants
        for kept in _begun(runs, name)
    }


def begun_clocks(runs: Path) -> set[str | None]:
    """The variants whose seconds were held equal when runs at equal seconds were begun; None where none was noted."""
    return {kept.clock for kept in _begun(runs, None)}


def _begun(runs: Path, variant: str | None) -> list[_Kept]:
    """What runs at equal seconds were begun with: those of a variant, or all."""
    pattern = "equal_seconds-*" if variant is None else f"{glob.escape(f'equal_seconds-{variant}-seed')}*"
    return [read_json_as(_Kept, path, what="run_dir") for path in sorted(runs.glob(f"{pattern}/{_BEGUN}"))]


def evaluation_overrides(
    tasks: tuple[str, ...] | None, max_batches: int | str | None, machine: tuple[str, ...]
) -> tuple[str, ...] | None:
    """What `evaluate.py` is told; None where no task is wanted."""
    if tasks == ():
        return None
    limit = "null" if max_batches is None else max_batches
    return (f"max_batches={limit}", *(() if tasks is None else (f"tasks={listed(tasks)}",)), *machine)
