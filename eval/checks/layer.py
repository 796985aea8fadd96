"""The gate of a layer: its op is right, and so are masking and projections around it.

Which tokens mix is tested by overwriting one token with a loud one: exactly the outputs that the mechanism's pattern
allows may change, those next to it must, and no other row of the batch may. That takes a few hundred tokens, more than
any chunk, block or default window; at the cell's own length the op and the timed call itself are compared.

Letters: B batch, L length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from eval.checks import (
    Finding,
    Tolerance,
    as_numpy,
    gradients_finding,
    root_mean_squares,
    tolerance,
    values_finding,
)
from eval.checks.op import check_op
from eval.workloads import arrays_of, with_gradients
from zoo.attention import Attention, VariantConfig, mechanism

if TYPE_CHECKING:
    from eval.workloads.layer import LayerSetting
    from eval.workloads.op import OpSetting

logger = logging.getLogger(__name__)

MAX_LENGTH = 384
# Times a usual token: loud enough that whoever may attend to it does, in half of the heads at least.
_AMPLIFICATION = 30.0
# Of the tokens that may see the loud one, this many next to it are asked whether they do. Others may have forgotten it
# (recurrent states decay) or look away, so half of them is enough.
_NEIGHBOURS = 8
# Past the borders of default windows and blocks.
_VETTING_LENGTH = 96


def check_layer(
    setting: "LayerSetting", layer: Attention, timed_BLD: mx.array, gradients: Sequence[mx.array] | None = None
) -> list[Finding]:
    """Checks a layer.

    Args:
        setting: What is timed.
        layer: The layer that is timed.
        timed_BLD: The timed call's outputs.
        gradients: The timed call's gradients, of x and of every parameter; None for a forward pass.
    """
    bound, cell = tolerance(setting.dtype), setting.cell
    small = setting.changed(batch_size=2, length=min(MAX_LENGTH, cell.length))
    x_BLD = small.hidden_states()

    def apply(x_BLD: mx.array) -> mx.array:
        return layer(x_BLD, mask=setting.mask)

    findings = check_op(setting, gradient=False)
    check = "timed call equals the uncompiled layer"
    findings.append(values_finding(check, timed_BLD, apply(setting.hidden_states()), bound))
    reach_LS = reach([setting.variant], small.cell.length, causal=setting.shape.causal)
    findings += check_mixing(apply, x_BLD, _amplified, bound, may_LS=reach_LS, direct_LS=reach_LS)
    findings += _check_projections(small, layer, bound)
    other, name = _other_layer(small, layer)
    if other is not None:
        expected_BLD = other(x_BLD, mask=setting.mask)
        findings.append(values_finding(f"values equal those of {name}", apply(x_BLD), expected_BLD, bound))
    if gradients is None:
        return findings
    findings += [*check_op(setting, gradient=True), _reached(setting, gradients)]
    check = "timed gradients equal those of the uncompiled layer"
    findings.append(gradients_finding(check, gradients, _uncompiled_gradients(setting, layer), bound))
    if other is not None:
        given = [small.output_weights(), x_BLD, *arrays_of(layer.parameters())]
        mine, theirs = (with_gradients(small.function_of(each))(*given)[1] for each in (layer, other))
        findings.append(gradients_finding(f"gradients equal those of {name}", mine, theirs, bound))
    return findings


def _other_layer(setting: "LayerSetting", layer: Attention) -> tuple[Attention | None, str]:
    """The layer by another implementation with the same weights, if there is one, and its name."""
    variant = other_implementation(setting)
    if variant is None:
        return None, ""
    other = dataclasses.replace(setting, variant=variant).layer()
    other.update(layer.parameters())
    return other, f"{variant.implementation} under the same weights"


def _reached(setting: "LayerSetting", gradients: Sequence[mx.array]) -> Finding:
    missing = sum(not mx.isfinite(gradient).all().item() or not gradient.any().item() for gradient in gradients)
    # A single token leaves the softmax nothing to weigh, so q and k have no gradient.
    allowed = len(gradients) if setting.cell.length == 1 else 0
    return Finding(check="every parameter gets a finite gradient", error=float(missing), tolerance=float(allowed))


def _uncompiled_gradients(setting: "LayerSetting", layer: Attention) -> list[mx.array]:
    """As the timed call's, but taken of the layer's own tree of parameters."""
    own, weights_BLD = layer.parameters(), setting.output_weights()

    def weighted(x_BLD: mx.array, parameters: Any) -> mx.array:
        layer.update(parameters)
        return (layer(x_BLD, mask=setting.mask) * weights_BLD).astype(mx.float32).sum()

    gradients = mx.grad(weighted, argnums=(0, 1))(setting.hidden_states(), own)
    layer.update(own)
    return arrays_of(gradients)


def _check_projections(setting: "LayerSetting", layer: Attention, bound: Tolerance) -> list[Finding]:
    """The layer against its own projections around the float64 reference, where it tells what goes into the op."""
    x_BLD = setting.hidden_states()
    inputs = layer.op_inputs(x_BLD, mask=setting.mask)
    # The contract's tests refuse a layer that tells less than its op takes; to be timed it need not.
    if inputs is None or [array.shape for array in inputs] != [array.shape for array in setting.inputs()]:
        return []
    parameters, shape = setting.variant.parameters, setting.shape
    spec = setting.declared.make_spec(parameters, setting.mask, shape.head_dim, shape.slopes)
    y_BNLH = setting.declared.reference(*map(as_numpy, inputs), spec)
    expected = layer.output(x_BLD, mx.array(y_BNLH.astype(np.float32)).astype(setting.dtype))
    check = "layer against its projections around the reference"
    return [values_finding(check, layer(x_BLD, mask=setting.mask), expected, bound)]


def other_implementation(op: "OpSetting") -> VariantConfig | None:
    """The variant with the mechanism's first other implementation that can do the same and passes the gate itself.

    None if there is none; a mistake in one implementation must not damn the others.
    """
    small = op.changed(length=min(_VETTING_LENGTH, op.cell.length), compiled=False)
    for name in op.declared.implementations_here():
        able = op.declared.capabilities(op.variant.parameters, name)
        if name == op.variant.implementation or not (able.causal if op.shape.causal else able.bidirectional):
            continue
        other = dataclasses.replace(op.variant, implementation=name)
        try:
            if all(finding.passed for finding in check_op(dataclasses.replace(small, variant=other), gradient=True)):
                return other
        # Its own cell will say what is wrong with it, whatever a mechanism of any package may raise.
        except Exception:
            logger.debug("%s cannot vouch for another implementation", name, exc_info=True)
    return None


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
        change_BL = _change(after, before)
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


def _amplified(x_BLD: mx.array, position: int) -> mx.array:
    amplified = mx.array(x_BLD)
    amplified[0, position] = amplified[0, position] * _AMPLIFICATION
    return amplified


def _change(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[B, L]: largest change of each output, over the root mean square of the output before."""
    if not np.isfinite(after).all():
        return np.full(before.shape[:2], np.inf)
    return np.abs(after - before).max(axis=-1) / root_mean_squares(before)
