"""Builders for the runner's tests: what a cell does is its variant's name."""

import os
import signal
import time
from collections.abc import Callable, Mapping
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
    if cell.variant == "no_memory_to_build":
        raise MemoryError
    a = mx.ones((MEBIBYTE // 4,))
    mx.eval(a)

    def check() -> Correctness:
        if cell.variant == "aborts_in_check":
            os.abort()
        wrong = cell.variant == "wrong"
        return Correctness(passed=not wrong, checks="values", max_error=0.7 if wrong else 0.0, tolerance=1e-5)

    if cell.variant == "beats":
        path = Path(cell.detail)

        def beat() -> mx.array:
            with path.open("a", encoding="ascii") as file:
                file.write(".")
            time.sleep(0.01)
            return a

    if cell.variant == "is_killed_once":
        marker = Path(cell.detail)

        def killed_once() -> mx.array:
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return a + 1

        return _workload(cell, killed_once, check, a)

    call = beat if cell.variant == "beats" else CALLS.get(cell.variant.partition("(")[0].strip(), _adds).__get__(a)
    return _workload(cell, call, check, a)


def _workload(cell: Cell, call: Callable[[], mx.array], check: Callable[[], Correctness], a: mx.array) -> Workload:
    return Workload(
        call=call,
        check=check,
        work=Work(useful_flops=MEBIBYTE // 4, tokens=cell.length),
        function="addition",
        analytic_bytes=2 * a.nbytes,
        cache_bytes=lambda: 4 * cell.length,
        analytic_cache_bytes=4 * cell.length,
    )


def listen(cell: Cell, options: MeasureOptions) -> None:
    """Waits for a worker's reports; for a process that is to be killed over it."""
    list(Worker(time_cells, [cell], options).reports(step_seconds=60.0, should_stop=lambda: False))


def _adds(a: mx.array) -> mx.array:
    return a + 1


def _sleeps(a: mx.array) -> mx.array:
    time.sleep(0.002)
    return a


def _hangs(a: mx.array) -> mx.array:
    time.sleep(600)
    return a


def _exits(_: mx.array) -> mx.array:
    os._exit(3)


def _is_killed(_: mx.array) -> mx.array:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _no_memory(_: mx.array) -> mx.array:
    raise RuntimeError("[malloc] Unable to allocate 123 bytes.")


def _raises(_: mx.array) -> mx.array:
    raise TypeError("first line\nunsupported operand")


CALLS: Mapping[str, Callable[[mx.array], mx.array]] = {
    "sleeps": _sleeps,
    "hangs": _hangs,
    "exits": _exits,
    "is_killed": _is_killed,
    "no_memory": _no_memory,
    "raises": _raises,
}
