"""The gates of an op and of a layer: a call is timed only if it computes what its mechanism's float64 reference says.

An op is compared by the very function that is timed, compiled or not, on the very arrays: the first head of the first
row, and the second and the last of the last row. Where heads and rows are independent by the mechanism's definition,
the reference sees one head of one row at a time, and a mix-up of axes cannot hide: only between the ends do heads that
repeat in another order part. Heads that know of each other are compared together, and a call whose inputs cannot be
told apart by row as a whole. Gradients are compared by a directional derivative: <gradient, direction> against the
central difference of the reference.

A layer must also mask and project right. A few hundred tokens, more than any chunk, block or default window, show which
of them mix; at the cell's own length its op and the timed call are compared.

Letters: B batch, L length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from eval.checks import Finding, Tolerance, as_numpy, gradients_finding, relative_errors, tolerance, values_finding
from eval.workloads import are_finite, arrays_of
from zoo.attention import Attention, VariantConfig, mechanism

if TYPE_CHECKING:
    from eval.workloads.attention import AttentionSetting

logger = logging.getLogger(__name__)

# The reference holds several L x L arrays of float64: 134 MB each here. Beyond, the first tokens are compared.
MAX_REFERENCE_LENGTH = 4096
# Longest text on which the mixing of a layer is tested.
MAX_MIXING_LENGTH = 384
# Past the borders of default windows and blocks.
_VETTING_LENGTH = 96
# Times a usual token: loud enough that whoever may attend to it does, in half of the heads at least.
_AMPLIFICATION = 30.0
# Of the tokens that may see the loud one, this many next to it are asked whether they do. Others may have forgotten it
# (recurrent states decay) or look away, so half of them is enough.
_NEIGHBOURS = 8
# What is compared together: rows of the batch, and query heads of them.
Place = tuple[slice, slice]
_ALL = slice(None)
# Step and weights of the central difference: truncation and rounding of the reference both stay near 1e-8. A reference
# that calls a mechanism's own function of the scores is right to 4e-8 only, as MLX's exponential in float64 is; there a
# longer step drowns that, and a difference of fourth order keeps the truncation small.
_SECOND_ORDER = 1e-4, {1: 1 / 2, -1: -1 / 2}
_FOURTH_ORDER = 1e-2, {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}


def check_op(setting: "AttentionSetting", timed: Callable[..., Any] | None = None) -> list[Finding]:
    """Compares an op with its mechanism's reference: its values and, if the cell's mode has them, its gradients.

    Args:
        setting: What is timed. Above `reference_length` tokens the first of the timed call are compared where the
            future is hidden, and otherwise the same op on that many; all of the timed call must be finite.
        timed: The function that is timed, `setting.function()`; None to make it anew.
    """
    function = timed or setting.function()
    full, length = setting.cell.length, reference_length(setting)
    if full <= length:
        return _Comparison(setting, full, function).findings()
    if setting.shape.causal and setting.has_rows:
        # No output knows how long the text is: the first tokens of the timed call are those of a shorter one.
        findings = _Comparison(setting, length, function).findings()
        note = f" (first {length} tokens of the timed call)"
    else:
        findings = _Comparison(setting.changed(length=length), length, function).findings()
        note = f" (at length {length}, not {full}: the reference's arrays grow with its square)"
    is_finite = are_finite(function(*setting.arguments()))
    return [
        *(dataclasses.replace(finding, check=finding.check + note) for finding in findings),
        Finding(check="all of the timed call is finite", error=float(not is_finite), tolerance=0.0),
    ]


def reference_length(setting: "AttentionSetting") -> int:
    """Longest text that is compared: `MAX_REFERENCE_LENGTH` for one head of one row, shorter for several at once."""
    heads = 1 if setting.declared.separate_heads else setting.shape.num_heads
    together = heads if setting.has_rows else setting.shape.num_heads * setting.cell.batch_size
    return max(1, int(MAX_REFERENCE_LENGTH / together**0.5))


class _Comparison:
    """The first `length` tokens of a call, against the reference."""

    def __init__(self, setting: "AttentionSetting", length: int, function: Callable[..., Any]) -> None:
        self.setting, self.length, self.function = setting, length, function
        self.given, self.bound = setting.arguments(), tolerance(setting.dtype)
        self.inputs = self.given[1:] if setting.gradient else self.given

    def findings(self) -> list[Finding]:
        """Of the values and, if they are right, of the gradients."""
        values = self._values()
        return [values, *self._gradients()] if self.setting.gradient and values.passed else [values]

    def _places(self) -> list[Place]:
        """What is compared; the gradient is asked for through the last."""
        setting = self.setting
        if not setting.has_rows:
            return [(_ALL, _ALL)]
        batch_size, num_heads = setting.cell.batch_size, setting.shape.num_heads
        first, last = slice(0, 1), slice(batch_size - 1, batch_size)
        if not setting.declared.separate_heads:
            return [(first, _ALL), (last, _ALL)]
        heads = [slice(head, head + 1) for head in (0, num_heads - 1, min(1, num_heads - 1))]
        return list(zip((first, last, last), heads, strict=True))

    def _values(self) -> Finding:
        setting, outputs = self.setting, self.function(*self.given)
        cell, shape = setting.cell, setting.shape
        y_BNLH = outputs[0] if setting.gradient else outputs
        expected_shape = (cell.batch_size, shape.num_heads, cell.length, shape.head_dim)
        if y_BNLH.shape != expected_shape:
            text = f"output shape {y_BNLH.shape} instead of {expected_shape}"
            return Finding(check=text, error=float("inf"), tolerance=self.bound.value)
        error = 0.0
        for place in self._places():
            expected = setting.reference(self._sliced(self.inputs, place))
            actual = as_numpy(y_BNLH[(*place, slice(self.length))])
            error = max(error, float(relative_errors(actual, expected).max()))
        return Finding(check="values against the float64 reference", error=error, tolerance=self.bound.value)

    def _gradients(self) -> list[Finding]:
        """One directional derivative through what is compared together, and no gradient anywhere else."""
        setting, bound, place = self.setting, self.bound.gradient, self._places()[-1]
        here = (*place, slice(self.length))
        cotangent_BNLH = mx.zeros_like(self.given[0])
        cotangent_BNLH[here] = self.given[0][here]
        _, gradients = self.function(cotangent_BNLH, *self.inputs)
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
        for gradient, cut in zip(gradients, self._cuts(place), strict=True):
            gradient[cut] = 0
        outside = max(float(np.abs(as_numpy(gradient)).max()) for gradient in gradients)
        leaked = outside / (max(float(np.abs(gradient).max()) for gradient in inside) or 1.0)
        return [
            Finding(check="gradients against the reference's directional derivative", error=error, tolerance=bound),
            Finding(check="no gradient in other heads, rows and later tokens", error=leaked, tolerance=bound),
        ]

    def _derivative(self, place: Place, directions: Sequence[np.ndarray], cotangent: np.ndarray) -> float:
        """Of the reference's weighted sum of outputs, along directions of its inputs."""
        longest, weights = _SECOND_ORDER if self.setting.declared.separate_heads else _FOURTH_ORDER
        step = longest / max(1.0, *(float(np.abs(way).max()) for way in directions))
        inputs, found = self._sliced(self.inputs, place), 0.0
        for steps, weight in weights.items():
            moved = [array + steps * step * way for array, way in zip(inputs, directions, strict=True)]
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


def other_implementation(op: "AttentionSetting") -> VariantConfig | None:
    """The variant with the mechanism's first other implementation that can do the same and passes the gate itself.

    None if there is none; a mistake in one implementation must not damn the others.
    """
    small = op.changed(length=min(_VETTING_LENGTH, op.cell.length), compiled=False, mode="forward_backward")
    for name in op.declared.implementations_here():
        able = op.declared.capabilities(op.variant.parameters, name)
        if name == op.variant.implementation or not (able.causal if op.shape.causal else able.bidirectional):
            continue
        other = dataclasses.replace(op.variant, implementation=name)
        try:
            if all(finding.passed for finding in check_op(dataclasses.replace(small, variant=other))):
                return other
        # Its own cell will say what is wrong with it, whatever a mechanism of any package may raise.
        except Exception:
            logger.debug("%s cannot vouch for another implementation", name, exc_info=True)
    return None


def check_layer(setting: "AttentionSetting", layer: Attention, timed: Any) -> list[Finding]:
    """Checks a layer.

    Args:
        setting: What is timed.
        layer: The layer that is timed.
        timed: What the timed call returned: y_BLD and, if the cell's mode has them, the gradients of x and of every
            parameter.
    """
    bound, mask = tolerance(setting.dtype), setting.mask
    small = setting.changed(batch_size=2, length=min(MAX_MIXING_LENGTH, setting.cell.length))
    y_BLD, gradients = timed if setting.gradient else (timed, None)
    reach_LS = reach([setting.variant], small.cell.length, causal=mask.causal)
    function = functools.partial(layer, mask=mask)
    check = "timed call equals the uncompiled layer"
    findings = [
        *check_op(setting),
        values_finding(check, y_BLD, function(setting.hidden_states()), bound),
        *check_mixing(function, small.hidden_states(), amplified, bound, may_LS=reach_LS, direct_LS=reach_LS),
        *_check_projections(small, layer, bound),
    ]
    if gradients is not None:
        check, expected = "timed gradients equal those of the uncompiled layer", _uncompiled_gradients(setting, layer)
        findings += [_reached(setting, gradients), gradients_finding(check, gradients, expected, bound)]
    variant = other_implementation(setting)
    if variant is None:
        return findings
    other = dataclasses.replace(setting, variant=variant).layer()
    other.update(layer.parameters())
    mine, theirs = (small.layer_function(each)(*small.layer_arguments(layer)) for each in (layer, other))
    check = f"equal those of {variant.implementation} under the same weights"
    if not setting.gradient:
        return [*findings, values_finding(f"values {check}", mine, theirs, bound)]
    values = values_finding(f"values {check}", mine[0], theirs[0], bound)
    return [*findings, values, gradients_finding(f"gradients {check}", mine[1], theirs[1], bound)]


def _uncompiled_gradients(setting: "AttentionSetting", layer: Attention) -> list[mx.array]:
    """As the timed call's, but taken of the layer's own tree of parameters."""
    own, weights_BLD = layer.parameters(), setting.layer_arguments(layer)[0]

    def weighted(x_BLD: mx.array, parameters: Any) -> mx.array:
        layer.update(parameters)
        return (layer(x_BLD, mask=setting.mask) * weights_BLD).astype(mx.float32).sum()

    gradients = mx.grad(weighted, argnums=(0, 1))(setting.hidden_states(), own)
    layer.update(own)
    return arrays_of(gradients)


def _reached(setting: "AttentionSetting", gradients: Sequence[mx.array]) -> Finding:
    missing = sum(not (are_finite(gradient) and gradient.any().item()) for gradient in gradients)
    # A single token leaves the softmax nothing to weigh, so q and k have no gradient.
    allowed = len(gradients) if setting.cell.length == 1 else 0
    return Finding(check="every parameter gets a finite gradient", error=float(missing), tolerance=float(allowed))


def _check_projections(setting: "AttentionSetting", layer: Attention, bound: Tolerance) -> list[Finding]:
    """The layer against its own projections around the float64 reference, where it tells what goes into the op."""
    x_BLD = setting.hidden_states()
    inputs = layer.op_inputs(x_BLD, mask=setting.mask)
    # The contract's tests refuse a layer that tells less than its op takes; to be timed it need not.
    if inputs is None or [array.shape for array in inputs] != [array.shape for array in setting.inputs()]:
        return []
    y_BNLH = setting.declared.reference(*map(as_numpy, inputs), setting.spec(setting.shape.slopes))
    expected = layer.output(x_BLD, mx.array(y_BNLH.astype(np.float32)).astype(setting.dtype))
    check = "layer against its projections around the reference"
    return [values_finding(check, layer(x_BLD, mask=setting.mask), expected, bound)]


def reach(variants: Sequence[VariantConfig], length: int, *, causal: bool) -> np.ndarray:
    """bool [L, L]: which outputs (rows) may depend on which inputs (columns) through any of the variants."""
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    allowed = np.zeros((length, length), dtype=bool)
    for variant in variants:
        pattern = mechanism(variant.mechanism).pattern
        allowed |= True if pattern is None else np.asarray(pattern(query, key, variant.parameters), dtype=bool)
    return (allowed & (key <= query) if causal else allowed) | (query == key)


def check_mixing(
    function: Callable[[mx.array], mx.array],
    inputs_BL: mx.array,
    overwrite: Callable[[mx.array, int], mx.array],
    bound: Tolerance,
    *,
    may_LS: np.ndarray,
    direct_LS: np.ndarray,
) -> list[Finding]:
    """Overwrites the token in the middle of row 0, and the last one, and looks at which outputs change.

    Exactly those that the mechanism's pattern allows may, those next to it must, and no other row of the batch may.

    Args:
        function: From inputs, [B, L] or [B, L, D], to outputs [B, L, ...]; B is 2.
        inputs_BL: Its inputs.
        overwrite: Returns the inputs with another token at a position of row 0.
        bound: Tolerances of the outputs.
        may_LS: Which outputs may depend on which inputs.
        direct_LS: Which do so within one layer, by `reach`.
    """
    length = inputs_BL.shape[1]
    before = as_numpy(function(inputs_BL))
    leak, other_row, unheard = 0.0, 0.0, 0.0
    for position in sorted({length // 2, length - 1}):
        after = as_numpy(function(overwrite(inputs_BL, position)))
        change_BL = relative_errors(after, before)
        may, direct = may_LS[:, position], direct_LS[:, position]
        leak = max(leak, float(change_BL[0][~may].max(initial=0.0)))
        other_row = max(other_row, float(change_BL[1].max()))
        by_distance = np.argsort(np.abs(np.arange(length) - position), kind="stable")
        near = [query for query in by_distance if direct[query] and query != position][:_NEIGHBOURS]
        heard = change_BL[0][near] > 2 * bound.value
        unheard = max(unheard, float(len(near) > 0 and 2 * heard.sum() < len(near)))
    return [
        Finding(check="no output sees a token that it may not", error=leak, tolerance=bound.value),
        Finding(check="no other row of the batch changes", error=other_row, tolerance=bound.value),
        Finding(check="neighbours see a token that they may", error=unheard, tolerance=0.0),
    ]


def amplified(x_BLD: mx.array, position: int) -> mx.array:
    """Hidden states whose token at a position of row 0 is loud."""
    changed = mx.array(x_BLD)
    changed[0, position] = changed[0, position] * _AMPLIFICATION
    return changed
