"""What the device itself can do: the floor, the matrix product peak and the copy bandwidth that rows are held against.

The sizes are the device's and not the cell's, so that every run asks the same.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from eval.bench import Workload
from eval.checks import Finding, as_numpy, tolerance
from eval.rows import Cell
from eval.workloads import Setting, scalar, workload_of
from zoo.config import require

# Large enough that a matrix product is far from memory-bound, small enough for a fifth of a second on a slow core.
MATMUL_SIDE = 2048
# Four times the last-level cache of common processors, so that a copy goes through memory.
COPY_BYTES = 128 * 2**20
# `copy` joins two halves: a copy that no lazy framework can avoid, and that does no arithmetic.
MODES: dict[str, Callable[..., mx.array]] = {
    "null": lambda one: one + one,
    "matmul": lambda a, b: a @ b,
    "copy": lambda *halves: mx.concatenate(list(halves)),
}


def build(cell: Cell) -> Workload:
    """Builds a cell of level device; its length and shapes mean nothing, its dtype is that of the arrays.

    Modes: `null` adds two scalars, the least that can be dispatched and evaluated; `matmul` multiplies two square
    matrices; `copy` reads and writes `COPY_BYTES` (`analytic_bytes` is the traffic, both ways).

    Raises:
        UserError: If the mode is another.
    """
    require(cell.mode in MODES, "modes", "suit a device", cell.mode, allowed=tuple(MODES))
    setting = Setting(cell=cell)
    given = [mx.ones((), dtype=setting.dtype)]
    if cell.mode != "null":
        shape = (MATMUL_SIDE, MATMUL_SIDE) if cell.mode == "matmul" else (COPY_BYTES // 2 // setting.dtype.size,)
        given = [setting.normal(*shape, stream=stream) for stream in (0, 1)]
    mx.eval(given)
    return workload_of(
        cell,
        MODES[cell.mode],
        given,
        lambda timed: [_difference(cell.mode, given, timed(*given))],
        computes=cell.mode,
        useful_flops=2 * MATMUL_SIDE**3 if cell.mode == "matmul" else None,
        inside_bytes=None if cell.mode == "null" else 0,
    )


def _difference(mode: str, given: Sequence[mx.array], found: mx.array) -> Finding:
    if mode == "matmul":
        # Some rows: all of them would take NumPy longer than the device.
        rows = slice(None, None, MATMUL_SIDE // 8)
        expected = as_numpy(given[0][rows], np.float64) @ as_numpy(given[1], np.float64)
        error = float(np.abs(as_numpy(found[rows]) - expected).max() / np.sqrt(np.mean(expected**2)))
        return Finding(check="eight rows against float64", error=error, tolerance=tolerance(found.dtype).value)
    if mode == "null":
        return Finding(check="1 + 1 is 2", error=scalar(found != 2), tolerance=0.0)
    equal = [mx.array_equal(*halves).item() for halves in zip(mx.split(found, 2), given, strict=True)]
    return Finding(check="the copy is equal", error=float(not all(equal)), tolerance=0.0)
