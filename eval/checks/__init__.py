"""The gate before the clock: what a check finds, and how far a value may lie from what it should be.

The bounds are a table by dtype. Errors are relative, so that they mean the same at every length: outputs of full
attention shrink like L^-1/2, and an absolute bound that suits the first query would let anything pass as the last. A
value's error is divided by the root mean square of its own output vector, a gradient's by the norm of the gradient. The
bounds are a few times the largest error of any correct variant, at lengths from 1 to 4096. What they must still tell
apart is far above them: the mildest fault on the list, a window one key too long, moves an output by about
1 / sqrt(window_size) of itself, 0.12 at 64 keys.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import DTypeLike

from eval.rows import Correctness

# A vector below this share of the largest counts as noise of that share, or rounding near 0 would be an error.
FLOOR = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison.

    Attributes:
        check: What was compared with what.
        error: Relative; not finite counts as failed.
        tolerance: Largest error accepted.
    """

    check: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is finite and within the tolerance."""
        return bool(np.isfinite(self.error) and self.error <= self.tolerance)


def verdict(findings: Sequence[Finding]) -> Correctness:
    """Sums up findings: all must pass; the error reported is the one nearest to, or furthest beyond, its tolerance."""

    def distance(finding: Finding) -> float:
        return finding.error / max(finding.tolerance, 1e-300) if np.isfinite(finding.error) else float("inf")

    failed = [finding for finding in findings if not finding.passed]
    worst = max(failed or findings, key=distance)
    told = [f"{each.check}: error {each.error:.3g}, accepted {each.tolerance:.3g}" for each in failed]
    text = "; ".join(told or [finding.check for finding in findings])
    return Correctness(passed=not failed, checks=text, max_error=worst.error, tolerance=worst.tolerance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest accepted relative errors: of outputs, and of gradients."""

    value: float
    gradient: float


# float32: rounding of 6e-8 over sums of thousands of terms that nearly cancel. float16 and bfloat16 round at 5e-4
# and 4e-3; scores of up to 5 lose that much in their exponent, and the weights are rounded once more.
TOLERANCES = {
    mx.float32: Tolerance(value=1e-4, gradient=1e-4),
    mx.float16: Tolerance(value=2e-2, gradient=2e-2),
    mx.bfloat16: Tolerance(value=1.5e-1, gradient=1e-1),
}


def tolerance(dtype: mx.Dtype, *, factor: float = 1.0) -> Tolerance:
    """The bounds for a dtype on this device, or so many times as wide ones."""
    # float32 whose matrix products keep 10 bits, as the tensor cores of some GPUs do by default, rounds like float16.
    found = TOLERANCES[mx.float16 if dtype == mx.float32 and _products_are_short() else dtype]
    return Tolerance(value=factor * found.value, gradient=factor * found.gradient)


@functools.cache
def _products_are_short() -> bool:
    """Whether float32 matrix products lose bits of their operands; read off one product, on the device in use."""
    # 1 + 2^-13 needs 13 bits of fraction: a product that keeps 10 returns 1.
    fine = 1 + 2.0**-13
    product = mx.full((64, 64), fine) @ mx.eye(64)
    return bool(mx.any(product != fine).item())


def as_numpy(array: mx.array, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Through float32, since NumPy has no bfloat16."""
    return np.array(array.astype(mx.float32), dtype=dtype)


def relative_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Largest difference of each vector (the last axis) over its root mean square, or over `FLOOR` of the largest.

    All are infinity if a value is not finite or the shapes differ.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return np.full(expected.shape[:-1], np.inf)
    sizes = np.sqrt(np.mean(np.square(expected, dtype=np.float64), axis=-1))
    scales = np.maximum(sizes, FLOOR * sizes.max())
    return np.abs(actual - expected).max(axis=-1) / np.where(scales == 0, 1.0, scales)


def values_finding(check: str, actual: mx.array, expected: mx.array, bound: Tolerance) -> Finding:
    """Compares outputs by `relative_errors`."""
    error = float(relative_errors(as_numpy(actual), as_numpy(expected)).max())
    return Finding(check=check, error=error, tolerance=bound.value)


def gradients_finding(check: str, actual: Any, expected: Any, bound: Tolerance) -> Finding:
    """Compares gradients by `largest_distance`."""
    return Finding(check=check, error=largest_distance(actual, expected), tolerance=bound.gradient)


def call_findings(check: str, actual: Any, expected: Any, bound: Tolerance) -> list[Finding]:
    """Compares what two calls returned: values, or values and gradients."""
    if isinstance(expected, mx.array):
        return [values_finding(f"values {check}", actual, expected, bound)]
    return [
        values_finding(f"values {check}", actual[0], expected[0], bound),
        gradients_finding(f"gradients {check}", actual[1], expected[1], bound),
    ]


def largest_distance(actual: Any, expected: Any) -> float:
    """Largest norm of a difference over the norm of what was expected, or over a thousandth of the largest norm.

    Of two trees of arrays; infinity if a value is not finite or the trees hold arrays of different names.
    """
    mine, theirs = (dict(tree_flatten(tree)) for tree in (actual, expected))
    if mine.keys() != theirs.keys():
        return float("inf")
    differences = [float(np.linalg.norm(as_numpy(theirs[name]) - as_numpy(mine[name]))) for name in theirs]
    norms = [float(np.linalg.norm(as_numpy(array))) for array in theirs.values()]
    floor = 1e-3 * max(norms)
    errors = [each / (max(norm, floor) or 1.0) for each, norm in zip(differences, norms, strict=True)]
    return max(errors) if np.isfinite(errors).all() else float("inf")
