"""Benchmarks of a few short cells, to be killed; their workers come from a server that has imported everything."""

import dataclasses
import multiprocessing
import multiprocessing.forkserver
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

# Here, and not at its first use in each process that is forked.
import scipy.stats  # noqa: F401

import eval.bench.process
from eval.bench import MeasureOptions, Workload
from eval.rows import Cell, read_rows
from eval.workloads import attention, registry
from recipes.app import execute
from recipes.benchmark import BenchmarkRecipe, main
from tests.eval.bench import planted

refusal = registry.refusal
_GRID = ("variants=[mha_manual]", "levels=[op]", "modes=[forward]", "lengths=[17,18,19]", "rounds=5")


def build(cell: Cell) -> Workload:
    """The device's own limits take seconds to measure, and are planted."""
    return planted.build(cell) if cell.builder == "device" else attention.build_op(cell)


class Benchmarks:
    """Three groups of a cell and its control, and the device's own."""

    def __init__(self, _: Path) -> None:
        """Starts the server of workers."""
        multiprocessing.set_forkserver_preload(["tests.endurance.server_of_workers", __name__])
        self._server = multiprocessing.forkserver._forkserver
        self._server.ensure_running()

    def main(self, run: Path) -> int:
        """Measures what is not measured yet."""
        serving = multiprocessing.get_context("forkserver")
        options = BenchmarkRecipe.options

        def quick(recipe: BenchmarkRecipe) -> MeasureOptions:
            return dataclasses.replace(
                options(recipe), workloads=__name__, min_warmup=1, max_warmup=2, sample_seconds=0.0005
            )

        with (
            # It is a child of whoever forked us, and would be missed.
            patch.object(self._server, "ensure_running", lambda: None),
            # Workers would import it, and need nothing of it.
            patch.dict(sys.modules, {"__main__": ModuleType("__main__")}),
            patch.object(eval.bench.process, "multiprocessing", SimpleNamespace(get_context=lambda _: serving)),
            patch.object(BenchmarkRecipe, "options", quick),
        ):
            return execute("benchmark", main, [*_GRID, f"run_dir={run}"])

    def kept(self, run: Path) -> dict[str, Any]:
        """The rows, as they were written."""
        path = run / "rows.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        rows = read_rows(path) if lines else []
        assert len(lines) == len(rows), f"{path}: a cell was measured twice"
        return {row.identity: line for row, line in zip(rows, lines, strict=True)}

    def outcome(self, run: Path) -> dict[str, Any]:
        """What was measured, with what outcome; the times are never equal."""
        rows = read_rows(run / "rows.jsonl")
        return {
            "rows": [(row.identity, row.status, row.reason) for row in rows],
            "complete": [row.timing is not None and row.memory is not None for row in rows],
            "schema": (run / "rows.schema.json").read_bytes(),
        }
