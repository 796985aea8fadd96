"""Compares what becomes of a trained model whose attention is exchanged: `compare.py checkpoint=…`.

Each variant is put in and looked at; what that broke is then mended in several ways, the arms, with one budget of
tokens: `heal` learns from the original, `finetune` from the text alone, and `scratch` is a model of that variant with
fresh weights. All of them are asked the same, and the original too.

run_dir/
  begun.json                         what is compared
  looks/original/, looks/<variant>/  what the original says, and what the exchange did: rows.jsonl and finished.json
  fresh/<variant>-seed<n>/           a checkpoint that was not trained
  runs/<arm>-<variant>-seed<n>/      a fine-tuning, its evaluation, begun.json and finished.json
  benchmark/, logs/, report/, rows.jsonl
"""

import concurrent.futures
import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from eval.rows import Row, only_writer, read_rows
from eval.suites.series import series_named
from recipes.comparison_jobs import carry_out_all
from recipes.comparison_run import (
    ComparisonRun,
    attention_overrides,
    machine_overrides,
)
from recipes.exchange_records import (
    exchange_summary,
    refusal,
    renamed,
    row_of_run,
    summary_lines,
    surgery_of_run,
)
from recipes.exchanges import NOT_TYPED, Arm, Exchanges, finetuning_plan, timing_script
from recipes.scripts import RefusedError, Script, ScriptRunner, listed, stopping_at_the_end
from zoo.checkpoints import LoadedCheckpoint, content_name, load_whole, save_checkpoint, swap_attention
from zoo.config import MOST, UserError
from zoo.config.files import read_json_mapping, replace_file, typed_path
from zoo.data import DataConfig, open_data
from zoo.models import Model, build_model
from zoo.runtime.seeds import seed_everything
from zoo.runtime.threads import usable_cores

logger = logging.getLogger(__name__)

# A fifth of the steps match layers. In a small Llama a half made linear attention 3 % better and a window worse.
_PARTS = 5
# Beside the variants.
_ORIGINAL = "original"
_BEGUN, _FINISHED = "begun.json", "finished.json"
_OF_LANGUAGE = ("language", "ablation", "generated_recall", "generated_needle")
_OF_ENCODERS = ("masked",)


class CheckpointComparison:
    """A comparison that was found in order, with the checkpoint at hand."""

    def __init__(self, asked: Exchanges) -> None:
        """Checks everything that can be checked before any work.

        Raises:
            UserError: On a mistake in the configuration, or a checkpoint that cannot be loaded.
        """
        for override in asked.typed:
            key = override.partition("=")[0].lstrip("+~")
            if key.partition(".")[0] in NOT_TYPED:
                raise UserError(f"{key} must not be given beside checkpoint; variants, seeds and arms say what varies")
        self.asked = asked
        self._plan = finetuning_plan(asked)
        self._base: LoadedCheckpoint = load_whole(
            typed_path(asked.checkpoint, what="checkpoint"), allow_large=self._plan.recipe.allow_large
        )
        if self._base.tokenizer is None:
            raise UserError(f"checkpoint: {self._base.folder} must hold a tokenizer; it was saved without one")
        if asked.layers is not None:
            # Refuses layers that there are not.
            swap_attention(self._model, self._model.config.attention, layers=asked.layers)
        config = self._plan.data
        self._of_text = isinstance(config, DataConfig)
        if not self._of_text and (asked.tasks or not asked.arms):
            raise UserError("data must be a corpus of text, as data=stdlib, for tasks, and without arms; got examples")
        # What every script finds in the cache then.
        self._identity = open_data(config, self._base.tokenizer).identity

    @property
    def _model(self) -> Model:
        return cast(Model, self._base.model)

    @property
    def name(self) -> str:
        """Of the checkpoint in records; looks on examples must not take the place of those on text."""
        return self.asked.name if self._of_text else f"{self.asked.name}, examples"

    def require_same(self) -> None:
        """Refuses to go on in a folder that compares something else, and notes what this one compares.

        Raises:
            UserError: If the folder holds another comparison, or cannot be written.
        """
        path = self.asked.folder / _BEGUN
        digest = content_name(self._base.folder)
        # A manifest is itself a list of sums.
        mine = {
            "checkpoint": hashlib.sha256(digest).hexdigest(),
            "data": self._identity.as_mapping(),
            "layers": None if self.asked.layers is None else list(self.asked.layers),
        }
        if path.exists():
            before = read_json_mapping(path, what="run_dir")
            changed = [key for key, value in mine.items() if before.get(key) != value]
            if changed:
                raise UserError(
                    f"run_dir must be a new folder, or hold this very comparison; {str(self.asked.folder)!r} was begun"
                    f" with another {' and '.join(changed)}"
                )
            return
        try:
            self.asked.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(mine) + "\n")
        except OSError as error:
            raise UserError(f"run_dir must be writable; got {str(self.asked.folder)!r} ({error.strerror})") from None

    def look(self, runner: ScriptRunner, jobs: int) -> dict[str, str | None]:
        """Asks the original, and looks at each exchange; what is finished is not looked at again.

        On examples, which are no text to evaluate on, each fine-tuning looks for itself.

        Returns:
            For each variant, why it was refused, or None.
        """
        asked, tasks = self.asked, self._tasks()
        if not self._of_text:
            return dict.fromkeys(asked.variants)
        if tasks:
            self._evaluate(runner, _ORIGINAL, (f"tasks={listed(tasks)}",))

        def reason(name: str) -> str | None:
            return self._evaluate(runner, name, (*attention_overrides(name), *asked.of_layers, "tasks=[surgery]"))

        with concurrent.futures.ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                reasons = list(tqdm(pool.map(reason, asked.variants), "surgery", len(asked.variants), unit="variant"))
            except BaseException:
                runner.stop()
                raise
        return dict(zip(asked.variants, reasons, strict=True))

    def cells(self, variants: Sequence[str]) -> list[ComparisonRun]:
        """The fine-tunings of some variants; seeds outside, so that one cut short has every variant once first."""
        tasks = self._tasks()
        return [
            ComparisonRun(
                variant=name,
                seed=seed,
                budget="equal_tokens",
                folder=self.asked.folder / "runs" / f"{arm}-{name}-seed{seed}",
                overrides=self._overrides(arm, name, seed),
                evaluation=(f"tasks={listed(tasks)}", *self._measured()) if tasks else None,
                logs=self.asked.folder / "logs",
                data=self._identity.as_mapping(),
                script="finetune.py",
                arm=arm,
            )
            for seed in self.asked.seeds
            for name in variants
            for arm in self.asked.arms
        ]

    def prepare_fresh(self, cells: Iterable[ComparisonRun]) -> None:
        """Writes the checkpoints that models from nothing begin with."""
        for cell in cells:
            folder = self._fresh(cell.variant, cell.seed)
            if cell.arm != "scratch" or cell.is_finished or folder.exists():
                continue
            seed_everything(cell.seed)
            exchanged, _ = swap_attention(self._model, series_named(cell.variant).variant, layers=self.asked.layers)
            folder.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(folder, model=build_model(exchanged.config), tokenizer=self._base.tokenizer)

    def rows(self, cells: Sequence[ComparisonRun], refused: Mapping[str, str | None]) -> list[Row]:
        """Every record: of the original, of each exchange, and of each fine-tuning."""
        looks = self.asked.folder / "looks"
        found: list[Row] = []
        for name in (_ORIGINAL, *self.asked.variants):
            path, reason = looks / name / "rows.jsonl", refused.get(name)
            if reason is not None:
                about = {"model": self.name, "data": self.asked.data, "measured_on": self._identity.validation}
                found.append(refusal(name, reason, **about))
            elif path.exists():
                variant = None if name == _ORIGINAL else name
                found += [renamed(row, self.name, variant=variant) for row in read_rows(path)]
        for cell in cells:
            model = f"{self.name}, {cell.arm}"
            found.append(row_of_run(cell, model))
            if not self._of_text and cell.result().get("surgery") is not None:
                found.append(surgery_of_run(cell, self.name))
            if cell.evaluation is not None:
                rows = read_rows(cell.evaluation_rows)
                found += [renamed(row, model, variant=cell.variant, budget=cell.budget) for row in rows]
        return list({row.identity: row for row in sorted(found, key=lambda row: row.recorded_at)}.values())

    def timing(self, variants: Sequence[str], budget_minutes: float | None) -> Script | None:
        """The benchmark of the checkpoint's shape, or None where no YAML in configs/model has it."""
        length = self._plan.training.sequence_length
        return timing_script(self.asked, self._model.config, variants, length, budget_minutes)

    def _tasks(self) -> tuple[str, ...]:
        fitting = _OF_LANGUAGE if self._model.config.causal else _OF_ENCODERS
        if not self._of_text:
            return ()
        return fitting if self.asked.tasks is None else self.asked.tasks

    def _measured(self) -> tuple[str, ...]:
        """How every model is asked: about the very text that fine-tuning is judged by, in float32."""
        training = self._plan.training
        batches = training.eval_batches if self.asked.max_batches == "auto" else self.asked.max_batches
        return (
            f"max_batches={'null' if batches is None else batches}",
            f"batch_size={training.batch_size}",
            f"sequence_length={training.sequence_length}",
            "dtype=float32",
            *machine_overrides(self.asked.typed),
        )

    def _evaluate(self, runner: ScriptRunner, name: str, overrides: tuple[str, ...]) -> str | None:
        """Evaluates the checkpoint, or a variant of it, once; gives the reason if it is refused."""
        folder = self.asked.folder / "looks" / name
        arguments = (f"checkpoint={self.asked.checkpoint}", *self.asked.of_data, *self._measured(), *overrides)
        finished = folder / _FINISHED
        if finished.exists():
            before = read_json_mapping(finished, what="run_dir")
            # What was refused may have been so for want of memory.
            if before == {"overrides": list(arguments), "refused": None}:
                return None
        log = self.asked.folder / "logs" / f"{name}.look.log"
        script = Script(
            name=f"looking at {name}", script="evaluate.py", arguments=(*arguments, f"run_dir={folder}"), log=log
        )
        reason = None
        try:
            runner.run(script)
        except RefusedError as error:
            if name == _ORIGINAL:
                raise
            reason = error.reason
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(finished, json.dumps({"overrides": arguments, "refused": reason}) + "\n")
        return reason

    def _overrides(self, arm: Arm, name: str, seed: int) -> tuple[str, ...]:
        """What `finetune.py` is told of one fine-tuning."""
        typed = [each for each in self.asked.typed if not each.startswith("data=")]
        plain = [each for each in typed if not each.startswith("distillation.")]
        if arm == "scratch":
            plain = [each for each in plain if not each.startswith(("optimizer", "method=", "lora.", "quantization."))]
            fresh = self._fresh(name, seed)
            return (f"data={self.asked.data}", *plain, f"checkpoint={fresh}", "method=full", *self.asked.scratch)
        own = (f"checkpoint={self.asked.checkpoint}", *attention_overrides(name), *self.asked.of_layers)
        healing = () if arm == "finetune" else self._distillation(name)
        # The exchange of a model of text was looked at before; of examples, all that validation looks at is.
        look = (f"surgery.batches={0 if self._of_text else self._plan.training.eval_batches or MOST}",)
        kept = plain if arm == "finetune" else typed
        return (f"data={self.asked.data}", *look, *healing, *kept, *own)

    def _distillation(self, name: str) -> tuple[str, ...]:
        """From the original: the first steps match the layers that differ, then the text is learnt, as LoLCATs does."""
        before, after = self._model.config.attention, series_named(name).variant
        count = self._model.config.num_layers
        layers = [index % count for index in self.asked.layers or range(count)]
        same = all(before.layer(index) == after.layer(index) for index in layers)
        return (f"distillation.attention_steps={0 if same else self._plan.training.steps // _PARTS}",)

    def _fresh(self, name: str, seed: int) -> Path:
        return self.asked.folder / "fresh" / f"{name}-seed{seed}"


def compare_exchanges(asked: Exchanges, *, jobs: int, benchmark: bool, budget_minutes: float | None) -> dict[str, Any]:
    """Looks, mends, asks and reports; goes on where an earlier call stopped.

    Args:
        asked: What is compared.
        jobs: Fine-tunings at the same time.
        benchmark: Whether whole-model speed and memory are measured as well.
        budget_minutes: Of the benchmark; None for no limit.

    Returns:
        `report_path`, `rows_path`, and `summary`: one object per variant and arm.

    Raises:
        UserError: On a mistake in the configuration, or if a run fails; what is finished stays.
    """
    comparison = CheckpointComparison(asked)
    runner = ScriptRunner(threads_each=max(1, usable_cores() // jobs) if jobs > 1 else None)
    with only_writer(asked.folder / "rows.jsonl") as store, stopping_at_the_end(runner):
        comparison.require_same()
        refused = comparison.look(runner, jobs)
        possible = [name for name in asked.variants if refused[name] is None]
        cells = comparison.cells(possible)
        for cell in cells:
            cell.require_same()
        comparison.prepare_fresh(cells)
        carry_out_all(cells, "fine-tunings", jobs, runner)
        timing = comparison.timing(possible, budget_minutes) if benchmark else None
        if timing is not None:
            runner.run(timing)
        elif benchmark:
            logger.warning("speed is not timed: no YAML in configs/model has the shape of %s", asked.checkpoint)
        rows = comparison.rows(cells, refused)
        rows += [] if timing is None else read_rows(asked.folder / "benchmark" / "rows.jsonl")
        store.append(row for row in rows if store.rows.get(row.identity) != row)
    # It imports matplotlib and SciPy.
    from eval.report import write_report

    files = write_report(rows, asked.folder / "report", title=f"Exchanged attention in {comparison.name}")
    summary = exchange_summary(rows, comparison.name, asked.variants)
    print("\n".join(summary_lines(summary)), file=sys.stderr)
    return {"report_path": str(files.html), "rows_path": str(store.path), "summary": summary}
