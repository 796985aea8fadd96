"""Builders for the runner's tests: what a cell does is its variant's name."""

import os
import signal
import time
from pathlib import Path

import mlx.core as mx

from eval.bench import MeasureOptions, Workload
from eval.bench.process import Worker
from eval.bench.worker import time_cells
from eval.rows import Cell, Correctness, Work
from zoo.config import UserError

MEBIBYTE = 2**20


def refusal(cell: Cell, available_bytes: int) -> str | None:
    return "too large" if cell.variant == "large" and available_bytes < MEBIBYTE else None


# The device's own limits come from here too, so that no test waits for a large matrix product.
def build(cell: Cell) -> Workload:
    if cell.variant == "refuses":
        raise UserError("attention must be causal here; got False")
    a = mx.ones((MEBIBYTE // 4,))
    mx.eval(a)

    def check() -> Correctness:
        if cell.variant == "aborts_in_check":
            os.abort()
        wrong = cell.variant == "wrong"
        return Correctness(passed=not wrong, checks="values", max_error=0.7 if wrong else 0.0, tolerance=1e-5)

    return Workload(
        call=lambda: _call(cell, a),
        check=check,
        work=Work(useful_flops=MEBIBYTE // 4, tokens=cell.length),
        function="addition",
        analytic_bytes=2 * a.nbytes,
        cache_bytes=lambda: 4 * cell.length,
        analytic_cache_bytes=4 * cell.length,
    )


def _call(cell: Cell, a: mx.array) -> mx.array:
    path = Path(cell.detail)
    match cell.variant:
        case "beats":
            with path.open("a", encoding="ascii") as file:
                file.write(".")
            time.sleep(0.01)
        case "sleeps":
            time.sleep(0.002)
        case "hangs":
            time.sleep(600)
        case "exits":
            os._exit(3)
        case "is_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "is_killed_once":
            if not path.exists():
                path.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "no_memory":
            raise RuntimeError("[malloc] Unable to allocate 123 bytes.")
        case "raises":
            raise TypeError("first line\nunsupported operand")
    return a + 1


def listen(cell: Cell, options: MeasureOptions) -> None:
    """Waits for a worker's reports; for a process that is to be killed over it."""
    list(Worker(time_cells, [cell], options).reports(lambda: False))
