"""The gate before the clock: a call is timed only if it computes what its mechanism's float64 reference says.

The gate runs the very function that is timed, compiled or not, on the very arrays. It compares the first head of the
first row, and the second and the last of the last row; where heads and rows are independent by the definition of the
mechanism, the reference sees one head of one row at a time, and a mix-up of axes cannot hide: only between the ends
do heads that repeat in another order part. Heads that know of each other are compared together, and a call whose
inputs cannot be told apart by row as a whole. Gradients are compared by a directional derivative: <gradient, direction>
against the central difference of the float64 reference.

How far a call may lie from its reference is a table by dtype. Errors are relative, so that they mean the same at
every length: outputs of full attention shrink like L^-1/2, and an absolute bound that suits the first query would let
anything pass as the last. A value's error is divided by the root mean square of its own output vector, a gradient's
by the norm of the gradient. The bounds are a few times the largest error of any correct variant, at lengths from 1 to
4096. What they must still tell apart is far above them: the mildest fault on the list, a window one key too long,
moves an output by about 1 / sqrt(window_size) of itself, 0.12 at 64 keys.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from eval.rows import Correctness
from eval.speed.op_setting import MIXED, OpSetting
from eval.speed.work import are_finite

# The reference holds several L x L arrays of float64: 134 MB each here. Beyond, the first tokens are compared.
MAX_REFERENCE_LENGTH = 4096
# What is compared together: rows of the batch, and query heads of them.
Place = tuple[slice, slice]
_ALL = slice(None)
# A row of outputs below this share of the largest counts as noise of that share, or rounding near 0 would be an error.
_FLOOR = 1e-2
# Of the central difference: truncation and rounding of the reference both stay near 1e-8. A reference that calls a
# mechanism's own function of the scores is right to 4e-8 only, as MLX's exponential in float64 is; there a longer step
# drowns that, and a difference of fourth order keeps the truncation small.
_STEP, _LONG_STEP = 1e-4, 1e-2
_SECOND_ORDER = {1: 1 / 2, -1: -1 / 2}
_FOURTH_ORDER = {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}


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
    failed = [finding for finding in findings if not finding.passed]
    worst = max(failed or findings, key=_distance)
    if failed:
        text = "; ".join(f"{each.check}: error {each.error:.3g}, accepted {each.tolerance:.3g}" for each in failed)
    else:
        text = "; ".join(finding.check for finding in findings)
    error = worst.error if np.isfinite(worst.error) else None
    return Correctness(passed=not failed, checks=text, max_error=error, tolerance=worst.tolerance)


def _distance(finding: Finding) -> float:
    """The error in units of the tolerance, which may be 0."""
    if not np.isfinite(finding.error):
        return float("inf")
    return finding.error / max(finding.tolerance, 1e-300)


def check_op(setting: OpSetting, *, gradient: bool, timed: Callable[..., Any] | None = None) -> list[Finding]:
    """Compares an op with its mechanism's reference.

    Args:
        setting: What is timed. Above `reference_length` tokens the first of the timed call are compared where the
            future is hidden, and otherwise the same op on that many; all of the timed call must be finite.
        gradient: Whether the backward pass is compared too.
        timed: The function that is timed, `setting.backward()` or `setting.forward()`; None to make it anew.
    """
    function = timed or (setting.backward() if gradient else setting.forward())
    length = reference_length(setting)
    if setting.length <= length:
        return _findings(setting, setting.length, function, gradient=gradient)
    if setting.causal and _has_rows(setting):
        # No output knows how long the text is: the first tokens of the timed call are those of a shorter one.
        findings = _findings(setting, length, function, gradient=gradient)
        note = f" (first {length} tokens of the timed call)"
    else:
        within = dataclasses.replace(setting, length=length)
        findings = _findings(within, within.length, function, gradient=gradient)
        note = f" (at length {within.length}, not {setting.length}: the reference's arrays grow with its square)"
    given = [setting.cotangent(), *setting.inputs()] if gradient else setting.inputs()
    finite = Finding(
        check="all of the timed call is finite", error=float(not are_finite(function(*given))), tolerance=0.0
    )
    return [
        *(dataclasses.replace(finding, check=finding.check + note) for finding in findings),
        finite,
    ]


def reference_length(setting: OpSetting) -> int:
    """Longest text that is compared: `MAX_REFERENCE_LENGTH` for one head of one row, shorter for several at once."""
    heads = 1 if setting.declared.separate_heads else setting.num_heads
    together = heads if _has_rows(setting) else setting.num_heads * setting.batch_size
    return max(1, int(MAX_REFERENCE_LENGTH / together**0.5))


def _has_rows(setting: OpSetting) -> bool:
    """Whether it is known what of the inputs belongs to a row, a head and a token."""
    return all(MIXED not in axes for axes in setting.axes)


def _places(setting: OpSetting) -> tuple[list[Place], Place]:
    """What is compared, and through which of it the gradient is asked for."""
    if not _has_rows(setting):
        return [(_ALL, _ALL)], (_ALL, _ALL)
    last = slice(setting.batch_size - 1, setting.batch_size)
    if not setting.declared.separate_heads:
        return [(slice(0, 1), _ALL), (last, _ALL)], (last, _ALL)
    ends = [slice(head, head + 1) for head in (0, min(1, setting.num_heads - 1), setting.num_heads - 1)]
    return [(slice(0, 1), ends[0]), (last, ends[1]), (last, ends[2])], (last, ends[1])


def _findings(setting: OpSetting, length: int, function: Callable[..., Any], *, gradient: bool) -> list[Finding]:
    """Compares the first `length` tokens of a call."""
    arrays = setting.inputs()
    places, inner = _places(setting)
    findings = _value_findings(setting, length, arrays, places, function, gradient=gradient)
    if gradient and all(finding.passed for finding in findings):
        findings += _gradient_findings(setting, length, arrays, inner, function)
    return findings


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, each divided by the root mean square of its own vector (the last axis).

    Returns:
        Infinity if a value is not finite or the shapes differ.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    scale = np.sqrt(np.mean(np.square(expected, dtype=np.float64), axis=-1, keepdims=True))
    scale = np.maximum(scale, _FLOOR * scale.max())
    return float((np.abs(actual - expected) / np.where(scale == 0, 1.0, scale)).max())


def _value_findings(
    setting: OpSetting,
    length: int,
    arrays: list[mx.array],
    places: Sequence[Place],
    function: Callable[..., Any],
    *,
    gradient: bool,
) -> list[Finding]:
    y_BNLH = function(setting.cotangent(), *arrays)[0] if gradient else function(*arrays)
    shape = (setting.batch_size, setting.num_heads, setting.length, setting.head_dim)
    bound = tolerance(setting.dtype).value
    if y_BNLH.shape != shape:
        return [Finding(check=f"output shape {y_BNLH.shape} instead of {shape}", error=float("inf"), tolerance=bound)]
    error = 0.0
    for place in places:
        expected = setting.reference(_sliced(setting, arrays, place, length))
        error = max(error, relative_error(_numpy(y_BNLH[(*place, slice(length))]), expected))
    return [Finding(check="values against the float64 reference", error=error, tolerance=bound)]


def _gradient_findings(
    setting: OpSetting, length: int, arrays: list[mx.array], place: Place, function: Callable[..., Any]
) -> list[Finding]:
    """One directional derivative through what is compared together, and no gradient anywhere else."""
    here = (*place, slice(length))
    cotangent_BNLH = mx.zeros_like(setting.cotangent())
    cotangent_BNLH[here] = setting.cotangent()[here]
    _, gradients = function(cotangent_BNLH, *arrays)
    cotangent = _numpy(cotangent_BNLH[here])
    cuts = _cuts(setting, place, length)
    inside = _sliced(setting, gradients, place, length)
    norms = [float(np.linalg.norm(gradient)) for gradient in inside]
    largest = max(norms)
    bound = tolerance(setting.dtype).gradient
    if not np.isfinite(largest):
        return [Finding(check="gradients are finite", error=float("inf"), tolerance=bound)]
    # Each array weighs alike, unless its gradient is next to nothing, as that of q and k is for a single token.
    scales = [1.0 / (max(norm, 1e-3 * largest) or 1.0) for norm in norms]
    generator = np.random.default_rng(setting.seed + 2)
    directions = [
        scale * generator.standard_normal(gradient.shape) for scale, gradient in zip(scales, inside, strict=True)
    ]
    actual = sum(float((gradient * way).sum()) for gradient, way in zip(inside, directions, strict=True))
    exact = _sliced(setting, arrays, place, length)
    is_exact = setting.declared.separate_heads
    step = (_STEP if is_exact else _LONG_STEP) / max(1.0, *(float(np.abs(way).max()) for way in directions))
    expected = 0.0
    for steps, weight in (_SECOND_ORDER if is_exact else _FOURTH_ORDER).items():
        y_BNLH = setting.reference(_moved(exact, directions, steps * step))
        expected += weight * float((y_BNLH * cotangent).sum()) / step
    # A derivative along a random direction is of the order of the gradient's norm, which is 1 per array here.
    error = abs(actual - expected) / len(inside) ** 0.5
    outside = max(_largest_outside(gradient, places) for gradient, places in zip(gradients, cuts, strict=True))
    leaked = outside / (max(float(np.abs(gradient).max()) for gradient in inside) or 1.0)
    return [
        Finding(check="gradients against the reference's directional derivative", error=error, tolerance=bound),
        Finding(check="no gradient in other heads, rows and later tokens", error=leaked, tolerance=bound),
    ]


def _moved(arrays: list[np.ndarray], directions: list[np.ndarray], step: float) -> list[np.ndarray]:
    return [array + step * direction for array, direction in zip(arrays, directions, strict=True)]


def _largest_outside(array: mx.array, cut: tuple[slice, ...]) -> float:
    rest = mx.array(array)
    rest[cut] = 0
    return float(np.abs(_numpy(rest)).max())


def _sliced(setting: OpSetting, arrays: Sequence[mx.array], place: Place, length: int) -> list[np.ndarray]:
    """What the first `length` queries of a place depend on, as float64 arrays of its rows and heads alone."""
    return [_numpy(array[cut]) for array, cut in zip(arrays, _cuts(setting, place, length), strict=True)]


def _cuts(setting: OpSetting, place: Place, length: int) -> list[tuple[slice, ...]]:
    """Where that is in each input array."""
    rows, heads = place
    kv_heads = heads
    if heads != _ALL:
        shared = heads.start * setting.num_kv_heads // setting.num_heads
        kv_heads = slice(shared, shared + 1)
    cut = {"B": rows, "N": heads, "K": kv_heads, "L": slice(length) if _has_rows(setting) else _ALL}
    return [tuple(cut.get(axis, _ALL) for axis in axes) for axes in setting.axes]


def _numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32), dtype=np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest accepted relative errors.

    Attributes:
        value: Of outputs.
        gradient: Of directional derivatives.
    """

    value: float
    gradient: float


# float32: rounding of 6e-8 over sums of thousands of terms that nearly cancel. float16 and bfloat16 round at 5e-4
# and 4e-3; scores of up to 5 lose that much in their exponent, and the weights are rounded once more.
TOLERANCES = {
    mx.float32: Tolerance(value=1e-4, gradient=1e-4),
    mx.float16: Tolerance(value=2e-2, gradient=2e-2),
    mx.bfloat16: Tolerance(value=1.5e-1, gradient=1e-1),
}
# float32 whose matrix products keep 10 bits, as the tensor cores of some GPUs do by default: rounds like float16.
_SHORT_PRODUCTS = TOLERANCES[mx.float16]


def tolerance(dtype: mx.Dtype) -> Tolerance:
    """The bounds for a dtype on this device."""
    return _SHORT_PRODUCTS if dtype == mx.float32 and _products_are_short() else TOLERANCES[dtype]


@functools.cache
def _products_are_short() -> bool:
    """Whether float32 matrix products lose bits of their operands; read off one product, on the device in use."""
    # 1 + 2^-13 needs 13 bits of fraction: a product that keeps 10 returns 1.
    fine = 1 + 2.0**-13
    product = mx.full((64, 64), fine) @ mx.eye(64)
    return bool(mx.any(product != fine).item())
