"""The gate of an op: a call is timed only if it computes what its mechanism's float64 reference says.

The gate runs the very function that is timed, compiled or not, on the very arrays. It compares the first head of the
first row, and the second and the last of the last row; where heads and rows are independent by the definition of the
mechanism, the reference sees one head of one row at a time, and a mix-up of axes cannot hide: only between the ends
do heads that repeat in another order part. Heads that know of each other are compared together, and a call whose
inputs cannot be told apart by row as a whole. Gradients are compared by a directional derivative: <gradient, direction>
against the central difference of the float64 reference.

Letters: B batch, L length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from eval.checks import Finding, as_numpy, relative_error, tolerance
from eval.workloads import are_finite

if TYPE_CHECKING:
    from eval.workloads.op import OpSetting

# The reference holds several L x L arrays of float64: 134 MB each here. Beyond, the first tokens are compared.
MAX_REFERENCE_LENGTH = 4096
# What is compared together: rows of the batch, and query heads of them.
Place = tuple[slice, slice]
_ALL = slice(None)
# Of the central difference: truncation and rounding of the reference both stay near 1e-8. A reference that calls a
# mechanism's own function of the scores is right to 4e-8 only, as MLX's exponential in float64 is; there a longer step
# drowns that, and a difference of fourth order keeps the truncation small.
_STEP, _LONG_STEP = 1e-4, 1e-2
_SECOND_ORDER = {1: 1 / 2, -1: -1 / 2}
_FOURTH_ORDER = {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}


def check_op(setting: "OpSetting", *, gradient: bool, timed: Callable[..., Any] | None = None) -> list[Finding]:
    """Compares an op with its mechanism's reference.

    Args:
        setting: What is timed. Above `reference_length` tokens the first of the timed call are compared where the
            future is hidden, and otherwise the same op on that many; all of the timed call must be finite.
        gradient: Whether the backward pass is compared too.
        timed: The function that is timed, `setting.function(gradient=gradient)`; None to make it anew.
    """
    function = timed or setting.function(gradient=gradient)
    full, length = setting.cell.length, reference_length(setting)
    if full <= length:
        return _Comparison(setting, full, function).findings(gradient=gradient)
    if setting.shape.causal and setting.has_rows:
        # No output knows how long the text is: the first tokens of the timed call are those of a shorter one.
        findings = _Comparison(setting, length, function).findings(gradient=gradient)
        note = f" (first {length} tokens of the timed call)"
    else:
        findings = _Comparison(setting.changed(length=length), length, function).findings(gradient=gradient)
        note = f" (at length {length}, not {full}: the reference's arrays grow with its square)"
    is_finite = are_finite(function(*setting.arguments(gradient=gradient)))
    return [
        *(dataclasses.replace(finding, check=finding.check + note) for finding in findings),
        Finding(check="all of the timed call is finite", error=float(not is_finite), tolerance=0.0),
    ]


def reference_length(setting: "OpSetting") -> int:
    """Longest text that is compared: `MAX_REFERENCE_LENGTH` for one head of one row, shorter for several at once."""
    heads = 1 if setting.declared.separate_heads else setting.shape.num_heads
    together = heads if setting.has_rows else setting.shape.num_heads * setting.cell.batch_size
    return max(1, int(MAX_REFERENCE_LENGTH / together**0.5))


class _Comparison:
    """The first `length` tokens of a call, against the reference."""

    def __init__(self, setting: "OpSetting", length: int, function: Callable[..., Any]) -> None:
        self.setting, self.length, self.function = setting, length, function
        self.arrays, self.bound = setting.inputs(), tolerance(setting.dtype)

    def findings(self, *, gradient: bool) -> list[Finding]:
        """Of the values and, if they are right, of the gradients."""
        places, inner = self._places()
        findings = [self._values(places, gradient=gradient)]
        return findings + self._gradients(inner) if gradient and findings[0].passed else findings

    def _places(self) -> tuple[list[Place], Place]:
        """What is compared, and through which of it the gradient is asked for."""
        setting = self.setting
        if not setting.has_rows:
            return [(_ALL, _ALL)], (_ALL, _ALL)
        batch_size, num_heads = setting.cell.batch_size, setting.shape.num_heads
        last = slice(batch_size - 1, batch_size)
        if not setting.declared.separate_heads:
            return [(slice(0, 1), _ALL), (last, _ALL)], (last, _ALL)
        ends = [slice(head, head + 1) for head in (0, min(1, num_heads - 1), num_heads - 1)]
        return [(slice(0, 1), ends[0]), (last, ends[1]), (last, ends[2])], (last, ends[1])

    def _values(self, places: Sequence[Place], *, gradient: bool) -> Finding:
        cell, shape = self.setting.cell, self.setting.shape
        function, arrays = self.function, self.arrays
        y_BNLH = function(self.setting.cotangent(), *arrays)[0] if gradient else function(*arrays)
        expected_shape = (cell.batch_size, shape.num_heads, cell.length, shape.head_dim)
        if y_BNLH.shape != expected_shape:
            text = f"output shape {y_BNLH.shape} instead of {expected_shape}"
            return Finding(check=text, error=float("inf"), tolerance=self.bound.value)
        error = 0.0
        for place in places:
            expected = self.setting.reference(self._sliced(arrays, place))
            error = max(error, relative_error(as_numpy(y_BNLH[(*place, slice(self.length))]), expected))
        return Finding(check="values against the float64 reference", error=error, tolerance=self.bound.value)

    def _gradients(self, place: Place) -> list[Finding]:
        """One directional derivative through what is compared together, and no gradient anywhere else."""
        setting, bound = self.setting, self.bound.gradient
        here = (*place, slice(self.length))
        cotangent_BNLH = mx.zeros_like(setting.cotangent())
        cotangent_BNLH[here] = setting.cotangent()[here]
        _, gradients = self.function(cotangent_BNLH, *self.arrays)
        inside = self._sliced(gradients, place)
        norms = [float(np.linalg.norm(gradient)) for gradient in inside]
        largest = max(norms)
        if not np.isfinite(largest):
            return [Finding(check="gradients are finite", error=float("inf"), tolerance=bound)]
        # Each array weighs alike, unless its gradient is next to nothing, as that of q and k is for a single token.
        scales = [1.0 / (max(norm, 1e-3 * largest) or 1.0) for norm in norms]
        generator = np.random.default_rng(setting.cell.seed + 2)
        directions = [
            scale * generator.standard_normal(gradient.shape) for scale, gradient in zip(scales, inside, strict=True)
        ]
        actual = sum(float((gradient * way).sum()) for gradient, way in zip(inside, directions, strict=True))
        expected = self._derivative(place, directions, as_numpy(cotangent_BNLH[here], np.float64))
        # A derivative along a random direction is of the order of the gradient's norm, which is 1 per array here.
        error = abs(actual - expected) / len(inside) ** 0.5
        outside = max(
            _largest_outside(gradient, cut) for gradient, cut in zip(gradients, self._cuts(place), strict=True)
        )
        leaked = outside / (max(float(np.abs(gradient).max()) for gradient in inside) or 1.0)
        return [
            Finding(check="gradients against the reference's directional derivative", error=error, tolerance=bound),
            Finding(check="no gradient in other heads, rows and later tokens", error=leaked, tolerance=bound),
        ]

    def _derivative(self, place: Place, directions: Sequence[np.ndarray], cotangent: np.ndarray) -> float:
        """Of the reference's weighted sum of outputs, along directions of its inputs."""
        exact = self._sliced(self.arrays, place)
        is_exact = self.setting.declared.separate_heads
        step = (_STEP if is_exact else _LONG_STEP) / max(1.0, *(float(np.abs(way).max()) for way in directions))
        found = 0.0
        for steps, weight in (_SECOND_ORDER if is_exact else _FOURTH_ORDER).items():
            moved = [array + steps * step * way for array, way in zip(exact, directions, strict=True)]
            found += weight * float((self.setting.reference(moved) * cotangent).sum()) / step
        return found

    def _sliced(self, arrays: Sequence[mx.array], place: Place) -> list[np.ndarray]:
        """What the first queries of a place depend on, as float64 arrays of its rows and heads alone."""
        return [as_numpy(array[cut], np.float64) for array, cut in zip(arrays, self._cuts(place), strict=True)]

    def _cuts(self, place: Place) -> list[tuple[slice, ...]]:
        """Where that is in each input array."""
        setting = self.setting
        rows, heads = place
        kv_heads = heads
        if heads != _ALL:
            shared = heads.start * setting.num_kv_heads // setting.shape.num_heads
            kv_heads = slice(shared, shared + 1)
        cut = {"B": rows, "N": heads, "K": kv_heads, "L": slice(self.length) if setting.has_rows else _ALL}
        return [tuple(cut.get(axis, _ALL) for axis in axes) for axes in setting.axes]


def _largest_outside(array: mx.array, cut: tuple[slice, ...]) -> float:
    rest = mx.array(array)
    rest[cut] = 0
    return float(np.abs(as_numpy(rest)).max())
