"""Shows trainings side by side: the settings in which they differ, and what came of each."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipes.job import CONFIG, Command, command_of
from recipes.streams import show
from zoo.config import UserError, from_mapping, require
from zoo.config.errors import printable
from zoo.config.files import read_json_mapping, read_yaml_mapping, typed_path
from zoo.training import RunFolder, read_metrics

_FIGURES = ("steps", "train_loss", "val_loss", "val_bits_per_byte", "val_accuracy", "seconds")
# Where a run lies and whether it may go on: no settings of it.
_NO_SETTINGS = ("run_dir", "resume")
# What fits beside the figures; the JSON has all settings that differ.
_MOST_COLUMNS = 8
_WIDEST_CELL = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunsRecipe:
    """`configs/runs.yaml`, composed.

    Attributes:
        folders: Where to look for runs, at any depth.
        sort: "run_dir", or the figure to sort by, least first; runs without it come last.
    """

    folders: tuple[str, ...] = ("runs",)
    sort: str = "run_dir"

    def __post_init__(self) -> None:
        require(bool(self.folders), "folders", "hold at least one folder", [])
        choices = ("run_dir", *_FIGURES)
        require(self.sort in choices, "sort", "be a column of figures", self.sort, allowed=choices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """One run as its folder tells it; `reason` says what of it cannot be read."""

    folder: Path
    status: str
    command: Command
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    reason: str | None = None


def main(config: DictConfig) -> dict[str, Any]:
    """Prints a table of runs.

    Returns:
        `runs`: one object each with `run_dir`, `status` (finished, interrupted, unfinished or damaged), `reason`,
        `overrides`, `settings` (those in which the runs differ) and the figures of its end.

    Raises:
        UserError: If a folder does not exist.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    recipe = from_mapping(RunsRecipe, {str(key): value for key, value in plain.items()}, path="runs")
    runs = [_read(folder) for folder in _folders(recipe.folders)]
    if recipe.sort != "run_dir":
        runs.sort(key=lambda run: run.figures.get(recipe.sort, math.inf))
    differing = _differing([run for run in runs if run.status != "damaged"])
    rows = [
        {
            "run_dir": str(run.folder),
            "status": run.status,
            "reason": run.reason,
            "overrides": list(run.command.overrides),
            "settings": {key: _setting(run, key) for key in differing},
            **{name: run.figures.get(name) for name in _FIGURES},
        }
        for run in runs
    ]
    show("".join(f"{line}\n" for line in _table(rows, differing)))
    return {"runs": rows}


def _folders(given: Sequence[str]) -> list[Path]:
    """The folders of runs, each once, in order of their names."""
    found: dict[Path, Path] = {}
    for text in given:
        top = typed_path(text, what="folders")
        if not top.is_dir():
            raise UserError(f"folders must exist; got {text!r}, which is no folder")
        for path, below, _ in os.walk(top):
            below[:] = sorted(name for name in below if name != "checkpoints" and not name.startswith("."))
            if RunFolder(Path(path)).holds_run:
                found.setdefault(Path(path).resolve(), Path(path))
    return sorted(found.values())


def _read(folder: Path) -> _Run:
    command = Command(overrides=(), choices={})
    try:
        config = read_yaml_mapping(folder / CONFIG, what="run")
        command = command_of(folder, config)
        result = read_json_mapping(folder / "result.json", what="run") if (folder / "result.json").exists() else None
        rows = read_metrics(folder / "metrics.jsonl") if result is None else []
    except UserError as error:
        return _Run(folder=folder, status="damaged", command=command, settings={}, figures={}, reason=str(error))
    if result is None:
        status, facts = (
            "unfinished",
            {key: value for row in rows for key, value in {**row, "steps": row["step"]}.items()},
        )
    else:
        status, facts = "interrupted" if result.get("interrupted") else "finished", result
    settings = {key: value for key, value in _leaves(config, "") if key not in _NO_SETTINGS}
    figures = {name: facts[name] for name in _FIGURES if _is_number(facts.get(name))}
    return _Run(folder=folder, status=status, command=command, settings=settings, figures=figures)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif value is None or isinstance(value, (bool, str)) or _is_number(value):
        yield path, value
    else:
        yield path, _as_json(value)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False)
    except TypeError:
        # Keys of a YAML can be dates.
        return str(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value))


def _differing(runs: Sequence[_Run]) -> list[str]:
    """Keys in which the runs differ, typed ones first; a group's choice rather than all that follows from it."""
    typed = {override.partition("=")[0].lstrip("+") for run in runs for override in run.command.overrides}
    groups = [
        group
        for group in sorted({group for run in runs for group in run.command.choices})
        if all(group in run.command.choices for run in runs)
        and len({str(run.command.choices[group]) for run in runs}) > 1
    ]
    keys = sorted({key for run in runs for key in run.settings})
    leaves = [
        key
        for key in keys
        if len({json.dumps(run.settings.get(key)) for run in runs}) > 1
        and (key.partition(".")[0] not in groups or key in typed)
    ]
    return [*groups, *sorted(leaves, key=lambda key: key not in typed)]


def _setting(run: _Run, key: str) -> Any:
    return run.settings[key] if key in run.settings else run.command.choices.get(key)


def _table(rows: Sequence[Mapping[str, Any]], differing: Sequence[str]) -> Iterator[str]:
    if not rows:
        yield "no runs"
        return
    shown = differing[:_MOST_COLUMNS]
    figures = [name for name in _FIGURES if any(row[name] is not None for row in rows)]
    lines = [["run_dir", *shown, *figures, "status"]]
    for row in rows:
        status = row["status"] if row["reason"] is None else f"{row['status']}: {row['reason']}"
        settings = [_cell(row["settings"][key]) for key in shown]
        lines.append([printable(row["run_dir"]), *settings, *(_cell(row[name]) for name in figures), printable(status)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        # The last column is not filled up.
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]])
    if len(differing) > len(shown):
        yield f"{len(differing) - len(shown)} more settings differ; the JSON has them all"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = printable(f"{value:.4g}" if isinstance(value, float) else str(value))
    return text if len(text) <= _WIDEST_CELL else f"{text[:_WIDEST_CELL]}…"
