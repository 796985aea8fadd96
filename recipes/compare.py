"""Compares variants on equal terms: trains each over several seeds, evaluates, benchmarks, and writes one report.

Equal tokens: all take the same number of optimizer steps. Equal seconds: each takes as many steps as fit into the
training time that the first variant needed at equal tokens, at the speed that was measured there, so that every run
has a whole learning-rate schedule. The first variant's runs are the same under both, and are trained once.

run_dir/
  runs/<budget>-<variant>-seed<n>/   a training run, its evaluation, begun.json and finished.json
  benchmark/, logs/, report/, rows.jsonl
"""

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from eval.quality.run_rows import relabelled, row_of_training
from eval.quality.tasks import require_known
from eval.rows import Row, only_writer, read_rows
from eval.suites.series import series_named
from recipes.app import choice_name
from recipes.checkpoint_comparison import compare_exchanges
from recipes.comparison_jobs import carry_out_all, launcher_name
from recipes.comparison_run import (
    WHOLE_SCHEDULE,
    Budget,
    ComparisonRun,
    attention_overrides,
    begun_clocks,
    begun_steps,
    benchmark_script,
    evaluation_overrides,
    machine_overrides,
)
from recipes.exchanges import Arm, Exchanges
from recipes.job import job_overrides, of_hydra
from recipes.scripts import ScriptRunner, stopping_at_the_end
from recipes.training_plan import checked_plan
from zoo.attention.catalog import attention_names
from zoo.config import MOST, UserError, from_mapping, require
from zoo.config.files import typed_path
from zoo.data import open_data
from zoo.runtime.threads import usable_cores

# Every variant there is.
ALL = "all"
# What a comparison decides itself, run by run.
_ITS_OWN = ("attention", "seed", "run_dir", "resume")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareRecipe:
    """The keys of `configs/compare.yaml` that `configs/train.yaml` does not have.

    Attributes:
        variants: Names, or series such as `swa(window_size=32)`; the others are compared with the first.
        seeds: Of weights and data order.
        budgets: What is held equal.
        tasks: For `evaluate.py`; None for all that fit, empty for only what training itself reports.
        max_batches: Most batches of an evaluation, as for `evaluate.py`.
        benchmark: Whether whole-model speed and memory are measured as well.
        budget_minutes: Of the benchmark, or None.
        jobs: Trainings at the same time.
        run_dir: Output folder; a comparison that was begun there goes on.
        checkpoint: A trained model whose attention is exchanged for the variants; None to train them from nothing.
        layers: With a checkpoint, numbers of the layers that are exchanged; None for all.
        arms: With a checkpoint, ways to mend what the exchange broke; none only to look at that.
        scratch: With a checkpoint, overrides of `finetune.py` for the models with fresh weights.
    """

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[Budget, ...]
    run_dir: str
    checkpoint: str | None = None
    layers: tuple[int, ...] | None = None
    arms: tuple[Arm, ...] = ()
    scratch: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    max_batches: int | Literal["auto"] | None = "auto"
    benchmark: bool = True
    budget_minutes: float | None = None
    jobs: int = 1

    def __post_init__(self) -> None:
        for field in ("variants", "seeds", "budgets"):
            values = getattr(self, field)
            distinct = len(values) == len(set(values)) > 0
            require(distinct, field, "be a list of different values, at least one", list(values))
        for name in self.variants if self.variants != (ALL,) else ():
            series_named(name)
        whole = self.checkpoint is not None or self.layers is None
        require(whole, "layers", "be null without a checkpoint", self.layers)
        require(self.checkpoint != "", "checkpoint", "name one, or be null", self.checkpoint)
        require(self.run_dir.strip() != "", "run_dir", "name a folder", self.run_dir)
        in_order = self.budgets[0] == "equal_tokens"
        require(in_order, "budgets", "begin with equal_tokens, which sets the clock for the other", list(self.budgets))
        budget = self.budget_minutes
        require(budget is None or budget > 0, "budget_minutes", "be above 0", budget)
        most = self.max_batches
        fits = most in (None, "auto") or 1 <= int(most) <= MOST
        require(fits, "max_batches", f"be at least 1 and at most {MOST}, or null", most)
        require_known(self.tasks or ())
        cores = usable_cores()
        require(1 <= self.jobs <= cores, "jobs", f"be at least 1 and at most {cores}, the cores", self.jobs)


def main(config: DictConfig) -> dict[str, Any]:
    """Trains, evaluates, benchmarks and reports; goes on where an earlier call stopped.

    Returns:
        `report_path`, `rows_path`, and `summary`: one object per variant and budget.

    Raises:
        UserError: On a mistake in the configuration, or if a run fails; what is finished stays.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    names = [field.name for field in dataclasses.fields(CompareRecipe)]
    recipe = from_mapping(CompareRecipe, {name: plain[name] for name in names}, path="compare")
    if recipe.variants == (ALL,):
        recipe = dataclasses.replace(recipe, variants=tuple(attention_names()))
    through = launcher_name()
    alone = through is None or recipe.jobs == 1
    require(alone, "jobs", f"be 1 beside hydra/launcher={through}, which says how many there are", recipe.jobs)
    if recipe.checkpoint is not None:
        return _of_checkpoint(recipe)
    overrides = _training_overrides(recipe)
    training = {str(name): value for name, value in plain.items() if name not in names}
    # Before anything is written, and once for all runs: what a run would refuse, and what it learns from.
    plans = [
        checked_plan({**training, "attention": series_named(each).mapping}, at_once=recipe.jobs)
        for each in recipe.variants
    ]
    data = open_data(plans[0].data, plans[0].tokenizer).identity.as_mapping()
    folder = typed_path(recipe.run_dir, what="run_dir")
    runner = ScriptRunner(threads_each=max(1, usable_cores() // recipe.jobs) if recipe.jobs > 1 else None)
    cells: list[ComparisonRun] = []
    with only_writer(folder / "rows.jsonl") as store, stopping_at_the_end(runner):
        for budget in recipe.budgets:
            asked = _cells(budget, recipe, folder, overrides, data, cells)
            cells += carry_out_all(asked, budget, recipe.jobs, runner)
        if recipe.benchmark:
            script = benchmark_script(
                recipe.variants,
                choice_name("model"),
                plans[0].training.sequence_length,
                folder=folder,
                budget_minutes=recipe.budget_minutes,
            )
            machine = machine_overrides(overrides)
            runner.run(dataclasses.replace(script, arguments=(*script.arguments, *machine)))
        rows = _collected(cells, recipe, folder)
        store.append(row for row in rows if store.rows.get(row.identity) != row)
    # It imports matplotlib and SciPy.
    from eval.report import write_report

    files = write_report(rows, folder / "report", title=f"Attention variants in {choice_name('model')}")
    summary = _summary(cells, recipe)
    print("\n".join(_table(summary)), file=sys.stderr)
    return {"report_path": str(files.html), "rows_path": str(store.path), "summary": summary}


def _of_checkpoint(recipe: CompareRecipe) -> dict[str, Any]:
    """What becomes of a trained model whose attention is exchanged."""
    assert recipe.checkpoint is not None
    own = {field.name for field in dataclasses.fields(CompareRecipe)} - {"budgets"}
    typed = [each for each in job_overrides() if each.partition("=")[0].lstrip("+~") not in own and not of_hydra(each)]
    asked = Exchanges(
        checkpoint=recipe.checkpoint,
        variants=recipe.variants,
        layers=recipe.layers,
        arms=recipe.arms,
        seeds=recipe.seeds,
        tasks=recipe.tasks,
        max_batches=recipe.max_batches,
        scratch=recipe.scratch,
        folder=typed_path(recipe.run_dir, what="run_dir"),
        typed=tuple(typed),
        data=choice_name("data"),
    )
    return compare_exchanges(asked, jobs=recipe.jobs, benchmark=recipe.benchmark, budget_minutes=recipe.budget_minutes)


def _training_overrides(recipe: CompareRecipe) -> tuple[str, ...]:
    """What was typed for `train.py`.

    Raises:
        UserError: If it sets what a comparison decides itself, or what the benchmark would not know of.
    """
    own = {field.name for field in dataclasses.fields(CompareRecipe)}
    kept = []
    for override in job_overrides():
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] in _ITS_OWN and key != "run_dir":
            raise UserError(f"{key} must not be given: a comparison sets it for each run; use variants and seeds")
        if f"{key}=null" in WHOLE_SCHEDULE and override != f"{key}=null":
            raise UserError(f"{key} must be null in a comparison, where every run has its whole schedule")
        if recipe.benchmark and key.startswith("model."):
            raise UserError(f"benchmark must be false beside {key}: it times models as their YAMLs describe them")
        if key not in own and not of_hydra(override):
            kept.append(override)
    return tuple(kept)


def _cells(
    budget: Budget,
    recipe: CompareRecipe,
    folder: Path,
    overrides: tuple[str, ...],
    data: Mapping[str, str],
    earlier: Sequence[ComparisonRun],
) -> list[ComparisonRun]:
    """The runs of a budget; the first variant's at equal seconds are those at equal tokens once more."""
    first = recipe.variants[0]
    steps = {name: _steps(budget, name, recipe, earlier) for name in recipe.variants}
    if budget == "equal_seconds":
        if not begun_clocks(folder / "runs") <= {first}:
            raise UserError(
                f"variants must begin with the one whose seconds were held equal in {str(folder)!r}, or run_dir be new;"
                f" got {first!r}"
            )
        # Further seeds and variants take no others than those that were begun, whatever their own speed was.
        steps |= begun_steps(folder / "runs", recipe.variants[1:])
    cells = []
    # Seeds outside: a comparison that is cut short has every variant once before any twice.
    for seed in recipe.seeds:
        for name in recipe.variants:
            same = [cell for cell in earlier if name == first and (cell.variant, cell.seed) == (name, seed)]
            cells += [dataclasses.replace(cell, budget=budget) for cell in same] or [
                ComparisonRun(
                    variant=name,
                    seed=seed,
                    budget=budget,
                    folder=folder / "runs" / f"{budget}-{name}-seed{seed}",
                    overrides=(*overrides, *attention_overrides(name), *steps[name]),
                    evaluation=evaluation_overrides(recipe.tasks, recipe.max_batches, machine_overrides(overrides)),
                    logs=folder / "logs",
                    data=data,
                    clock=first if budget == "equal_seconds" else None,
                )
            ]
    for cell in cells:
        cell.require_same()
    return cells


def _steps(budget: Budget, name: str, recipe: CompareRecipe, earlier: Sequence[ComparisonRun]) -> tuple[str, ...]:
    """The override that gives a variant as many steps as the first one's seconds allow."""
    if budget == "equal_tokens":
        return ()
    if any(cell.result()["tokens_per_second"] is None for cell in earlier):
        raise UserError("training: steps must be at least 2 for equal_seconds; the first step's time says nothing")
    speeds = {
        each: statistics.median(cell.result()["tokens_per_second"] for cell in earlier if cell.variant == each)
        for each in (recipe.variants[0], name)
    }
    steps = next(cell.result()["steps"] for cell in earlier if cell.variant == recipe.variants[0])
    return (f"training.steps={max(1, round(steps * speeds[name] / speeds[recipe.variants[0]]))}",)


def _collected(cells: Sequence[ComparisonRun], recipe: CompareRecipe, folder: Path) -> list[Row]:
    rows = []
    for cell in cells:
        rows.append(row_of_training(cell.folder, budget=cell.budget))
        if cell.evaluation is not None:
            # What was held equal belongs to what it says.
            rows += [relabelled(row, budget=cell.budget) for row in read_rows(cell.evaluation_rows)]
    if recipe.benchmark:
        rows += read_rows(folder / "benchmark" / "rows.jsonl")
    # A run that was evaluated in several ways gives one figure here, the newest.
    return list({row.identity: row for row in sorted(rows, key=lambda row: row.recorded_at)}.values())


def _summary(cells: Sequence[ComparisonRun], recipe: CompareRecipe) -> list[dict[str, Any]]:
    lines = []
    for budget in recipe.budgets:
        for name in recipe.variants:
            results = [cell.result() for cell in cells if (cell.budget, cell.variant) == (budget, name)]
            losses = [result["val_loss"] for result in results]
            bits = [result["val_bits_per_byte"] for result in results if result["val_bits_per_byte"] is not None]
            # A single step has no speed: the first one compiles.
            speeds = [each["tokens_per_second"] for each in results if each["tokens_per_second"] is not None]
            lines.append(
                {
                    "variant": name,
                    "budget": budget,
                    "seeds": len(results),
                    "steps": results[0]["steps"],
                    "mean_val_loss": statistics.fmean(losses),
                    "stdev_val_loss": statistics.stdev(losses) if len(losses) > 1 else None,
                    "mean_val_bits_per_byte": statistics.fmean(bits) if bits else None,
                    "stdev_val_bits_per_byte": statistics.stdev(bits) if len(bits) > 1 else None,
                    "median_tokens_per_second": statistics.median(speeds) if speeds else None,
                    "max_peak_memory_bytes": max(each["peak_memory_bytes"] for each in results),
                }
            )
    return lines


def _table(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """The summary for people; bits per byte where tokens are text, else nats per token."""
    rows = [("budget", "variant", "seeds", "steps", "validation", "tokens/s", "peak MiB")]
    for line in summary:
        bits = line["mean_val_bits_per_byte"] is not None
        name, unit = ("val_bits_per_byte", "bits/byte") if bits else ("val_loss", "nats")
        mean, deviation = line[f"mean_{name}"], line[f"stdev_{name}"]
        speed = line["median_tokens_per_second"]
        rows.append(
            (
                line["budget"],
                line["variant"],
                str(line["seeds"]),
                str(line["steps"]),
                f"{mean:.4f}{'' if deviation is None else f' ± {deviation:.4f}'} {unit}",
                "–" if speed is None else f"{speed:,.0f}",
                f"{line['max_peak_memory_bytes'] / 2**20:,.1f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
