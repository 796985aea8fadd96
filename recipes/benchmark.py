"""Measures speed and memory of variants: a named suite, or a grid of one's own; goes on with what its folder holds."""

import collections
import dataclasses
import datetime
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from eval.bench import Group, MeasureOptions
from eval.bench.records import device_group
from eval.bench.runner import is_finished, measure
from eval.query import Change, changes
from eval.rows import Row, RowStore, current_machine, only_writer, read_rows, rows_file
from eval.rows.cell import Execution
from eval.suites import AXES, Suite, SuiteRequest, suites
from eval.suites.series import series_named
from recipes.benchmark_table import change_lines, group_bar, table_lines
from zoo.attention.catalog import attention_names
from zoo.config import MOST, UserError, from_mapping, require
from zoo.config.files import replace_file, typed_path
from zoo.models.catalog import model_names
from zoo.runtime.backend import DTYPES, choose_backend
from zoo.training.signals import StopRequest

# What is measured where no suite is named.
OWN_GRID = "grid"
LEVELS = ("op", "layer", "model")
MODES = ("forward", "forward_backward", "step", "prefill", "decode")
_SECONDS_PER_MINUTE = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRecipe(SuiteRequest):
    """`configs/benchmark.yaml`, composed. Its lists are those of `SuiteRequest`.

    Attributes:
        suite: Name of a suite, or None for a grid of one's own.
        rounds: Timed rounds of a group.
        run_dir: Where `rows.jsonl` goes, or None for a new folder under `runs/`; what it holds is not measured again.
        seed: Of the order within rounds, and of where arrays lie.
        device: Back end.
        budget_minutes: For everything, or None for no limit.
        compare_to: Rows of another run, or a folder that holds them.
        allow_large: Whether to try what will not fit into memory.
    """

    suite: str | None
    rounds: int
    run_dir: str | None = None
    seed: int = 0
    device: str = "auto"
    budget_minutes: float | None = None
    compare_to: str | None = None
    allow_large: bool = False

    def __post_init__(self) -> None:
        known = self.suite is None or self.suite in suites()
        require(known, "suite", "be a suite", self.suite, allowed=tuple(suites()))
        require(self.rounds >= 1, "rounds", "be at least 1", self.rounds)
        require(self.run_dir != "", "run_dir", "name a folder, or be null for a new one", self.run_dir)
        budget = self.budget_minutes
        require(budget is None or budget > 0, "budget_minutes", "be above 0", budget)
        names = None if self.variants is None else [name.partition("(")[0] for name in self.variants]
        _require_names("variants", names, attention_names())
        for name in self.variants or ():
            series_named(name)
        _require_names("levels", self.levels, LEVELS)
        _require_names("modes", self.modes, MODES)
        _require_names("dtypes", self.dtypes, tuple(DTYPES))
        _require_names("executions", self.executions, get_args(Execution))
        _require_names("models", self.models, model_names())
        for field in ("lengths", "batch_sizes"):
            numbers = getattr(self, field)
            within = numbers is None or (len(numbers) > 0 and min(numbers) >= 1 and max(numbers) <= MOST)
            require(within, field, f"be a list of whole numbers of at least 1 and at most {MOST}", numbers)
        for field in AXES:
            values = getattr(self, field) or ()
            require(len(set(values)) == len(values), field, "name nothing twice", list(values))
        require(self.compiled != (), "compiled", "be a list of true, false, or both", [])

    @property
    def folder(self) -> Path:
        """Where rows go."""
        if self.run_dir is not None:
            return typed_path(self.run_dir, what="run_dir")
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        return Path("runs") / f"{now}-benchmark-{self.suite or OWN_GRID}"

    def options(self) -> MeasureOptions:
        """How it is measured."""
        minutes = self.budget_minutes
        return MeasureOptions(
            rounds=self.rounds,
            budget_seconds=math.inf if minutes is None else minutes * _SECONDS_PER_MINUTE,
            seed=self.seed,
            available_bytes=sys.maxsize if self.allow_large else None,
            device=self.device,
        )


def main(config: DictConfig) -> dict[str, Any]:
    """Measures what the folder does not hold yet, and prints a table on stderr.

    Returns:
        `rows_path`; `num_rows` and `statuses` of the suite's cells; `summary`: the suite's own figures; `interrupted`;
        with `compare_to` also `changes`: the cells whose time or status differs from the other run's.

    Raises:
        UserError: On a mistake in the configuration, before any work; if the output folder cannot be written.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    recipe = from_mapping(BenchmarkRecipe, {str(key): value for key, value in plain.items()}, path="benchmark")
    choose_backend(recipe.device)
    other = None if recipe.compare_to is None else rows_file(typed_path(recipe.compare_to, what="compare_to"))
    other_rows = None if other is None else read_rows(other)
    suite = suites()[recipe.suite or OWN_GRID]
    groups = suite.groups(recipe)
    folder = recipe.folder
    with only_writer(folder / "rows.jsonl") as store, StopRequest() as request, group_bar() as show:
        _write_schema(folder / "rows.schema.json")
        measure(
            groups,
            store=store,
            options=recipe.options(),
            progress=show,
            should_stop=lambda: request.name is not None,
        )
        interrupted = request.name is not None
    return _result(suite, groups, store, other_rows, interrupted=interrupted)


def _write_schema(path: Path) -> None:
    try:
        replace_file(path, json.dumps(Row.model_json_schema(), indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"run_dir must be a folder that can be written to; got {str(path)!r} ({error.strerror})"
        ) from None


def _result(
    suite: Suite, groups: Sequence[Group], store: RowStore, other_rows: Sequence[Row] | None, *, interrupted: bool
) -> dict[str, Any]:
    cells = [cell for group in groups for cell in group.recorded_cells]
    rows = [store.rows[cell.identity] for cell in cells if cell.identity in store.rows]
    limits = device_group(cell for group in groups for cell in group.cells).cells
    device = [store.rows[cell.identity] for cell in limits if cell.identity in store.rows]
    machine = current_machine()
    kept: Mapping[str, Any] = {}
    if suite.conclude is not None and all(is_finished(store.rows.get(cell.identity), machine) for cell in cells):
        kept = suite.conclude(rows)
    print(*table_lines([*device, *rows]), sep="\n", file=sys.stderr)
    result = {
        "rows_path": str(store.path),
        "suite": suite.name,
        "num_rows": len(rows),
        "statuses": dict(collections.Counter(row.status for row in rows)),
        "summary": suite.summary(rows),
        "interrupted": interrupted,
        **kept,
    }
    if other_rows is None:
        return result
    found = changes(rows, other_rows)
    print(*change_lines(found), sep="\n", file=sys.stderr)
    return {**result, "changes": [_plain_change(change) for change in found if change.changed]}


def _plain_change(change: Change) -> dict[str, Any]:
    return {
        "suite": change.cell.suite,
        "group": change.cell.group,
        "variant": change.cell.variant,
        "status": [change.other.status, change.row.status],
        "ratio": None if change.ratio is None else change.ratio.value,
        "ratio_low": None if change.ratio is None else change.ratio.low,
        "ratio_high": None if change.ratio is None else change.ratio.high,
        "p_value": change.p_value,
        "notice": change.notice,
    }


def _require_names(field: str, names: Sequence[str] | None, choices: Sequence[str]) -> None:
    if names is None:
        return
    require(len(names) > 0, field, "name at least one", list(names), allowed=choices)
    for name in names:
        require(name in choices, field, "name what exists", name, allowed=choices)
