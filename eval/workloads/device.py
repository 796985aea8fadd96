"""What the device itself can do: the floor, the matrix product peak and the copy bandwidth that rows are held against.

The sizes are the device's and not the cell's, so that every run asks the same.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from eval.bench import Workload
from eval.checks import Finding, as_numpy, tolerance
from eval.rows import Cell
from eval.workloads import Setting, scalar, workload_of
from zoo.config import require

MODES = ("null", "matmul", "copy")
# Large enough that a matrix product is far from memory-bound, small enough for a fifth of a second on a slow core.
MATMUL_SIDE = 2048
# Four times the last-level cache of common processors, so that a copy goes through memory.
COPY_BYTES = 128 * 2**20


def build(cell: Cell) -> Workload:
    """Builds a cell of level device; its length and shapes mean nothing, its dtype is that of the arrays.

    Modes: `null` adds two scalars, the least that can be dispatched and evaluated; `matmul` multiplies two square
    matrices; `copy` reads and writes `COPY_BYTES` (`analytic_bytes` is the traffic, both ways).

    Raises:
        UserError: If the mode is another.
    """
    require(cell.mode in MODES, "modes", "suit a device", cell.mode, allowed=MODES)
    return {"null": _null, "matmul": _matmul, "copy": _copy}[cell.mode](cell)


def _null(cell: Cell) -> Workload:
    one = mx.ones((), dtype=Setting(cell=cell).dtype)
    mx.eval(one)

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        return [Finding(check="1 + 1 is 2", error=scalar(timed(one) != 2), tolerance=0.0)]

    return workload_of(cell, lambda one: one + one, [one], check, computes="null", useful_flops=None)


def _matmul(cell: Cell) -> Workload:
    a, b = (Setting(cell=cell).normal(MATMUL_SIDE, MATMUL_SIDE, stream=stream) for stream in (0, 1))

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        # Some rows: all of them would take NumPy longer than the device.
        rows = slice(None, None, MATMUL_SIDE // 8)
        expected = as_numpy(a[rows], np.float64) @ as_numpy(b, np.float64)
        difference = np.abs(as_numpy(timed(a, b)[rows]) - expected).max()
        error, bound = float(difference / np.sqrt(np.mean(expected**2))), tolerance(a.dtype).value
        return [Finding(check="eight rows against float64", error=error, tolerance=bound)]

    flops, held = 2 * MATMUL_SIDE**3, 3 * a.nbytes
    return workload_of(
        cell, lambda a, b: a @ b, [a, b], check, computes="matmul", useful_flops=flops, analytic_bytes=held
    )


def _copy(cell: Cell) -> Workload:
    setting = Setting(cell=cell)
    halves = [setting.normal(COPY_BYTES // 2 // setting.dtype.size, stream=stream) for stream in (0, 1)]

    # Joining two halves is a copy that no lazy framework can avoid, and does no arithmetic.
    def join(*halves: mx.array) -> mx.array:
        return mx.concatenate(list(halves))

    def check(timed: Callable[..., mx.array]) -> list[Finding]:
        equal = [mx.array_equal(*pair).item() for pair in zip(mx.split(timed(*halves), 2), halves, strict=True)]
        return [Finding(check="the copy is equal", error=float(not all(equal)), tolerance=0.0)]

    return workload_of(cell, join, halves, check, computes="copy", useful_flops=None, analytic_bytes=2 * COPY_BYTES)
