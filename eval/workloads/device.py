"""What the device itself can do: the floor, the matrix product peak and the copy bandwidth that rows are held against.

The sizes are the device's and not the cell's, so that every run asks the same.
"""

import functools
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from eval.bench import Workload
from eval.checks import Finding, tolerance, verdict
from eval.rows import Cell, Correctness
from eval.workloads import scalar, work_of
from zoo.config import require
from zoo.runtime.backend import parse_dtype

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
    one = mx.ones((), dtype=parse_dtype(cell.dtype))
    mx.eval(one)
    call = _chosen(lambda one: one + one, [one], cell)

    def check() -> Correctness:
        return verdict([Finding(check="1 + 1 is 2", error=scalar(call() != 2), tolerance=0.0)])

    return Workload(call=call, check=check, work=work_of([one + one], useful_flops=None, tokens=None), function="null")


def _matmul(cell: Cell) -> Workload:
    dtype = parse_dtype(cell.dtype)
    key = mx.random.key(cell.seed)
    a, b = (mx.random.normal((MATMUL_SIDE, MATMUL_SIDE), key=each).astype(dtype) for each in mx.random.split(key))
    mx.eval(a, b)
    call = _chosen(lambda a, b: a @ b, [a, b], cell)

    def check() -> Correctness:
        # Some rows: all of them would take NumPy longer than the device.
        rows = np.array(a[:: MATMUL_SIDE // 8].astype(mx.float32), dtype=np.float64)
        expected = rows @ np.array(b.astype(mx.float32), dtype=np.float64)
        actual = np.array(call()[:: MATMUL_SIDE // 8].astype(mx.float32))
        error = float(np.abs(actual - expected).max() / np.sqrt(np.mean(expected**2)))
        bound = tolerance(dtype).value
        return verdict([Finding(check="eight rows against float64", error=error, tolerance=bound)])

    return Workload(
        call=call,
        check=check,
        work=work_of([a @ b], useful_flops=2 * MATMUL_SIDE**3, tokens=None),
        function="matmul",
        analytic_bytes=3 * a.nbytes,
    )


def _copy(cell: Cell) -> Workload:
    dtype = parse_dtype(cell.dtype)
    halves = [mx.random.normal((COPY_BYTES // 2 // dtype.size,)).astype(dtype) for _ in range(2)]
    mx.eval(halves)
    # Joining two halves is a copy that no lazy framework can avoid, and does no arithmetic.
    call = _chosen(lambda *halves: mx.concatenate(list(halves)), halves, cell)

    def check() -> Correctness:
        copied = call()
        half = halves[0].size
        equal = mx.array_equal(copied[:half], halves[0]) & mx.array_equal(copied[half:], halves[1])
        return verdict([Finding(check="the copy is equal", error=float(not equal.item()), tolerance=0.0)])

    return Workload(
        call=call,
        check=check,
        work=work_of([mx.concatenate(halves)], useful_flops=None, tokens=None),
        function="copy",
        analytic_bytes=2 * COPY_BYTES,
    )


def _chosen(function: Callable[..., mx.array], arguments: Sequence[mx.array], cell: Cell) -> Callable[[], mx.array]:
    return functools.partial(mx.compile(function) if cell.compiled else function, *arguments)
