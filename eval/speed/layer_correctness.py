"""The gate of a layer: its op is right, and around the op no token goes astray.

Which tokens mix is tested by overwriting one token with a loud one: exactly the outputs that the mechanism's pattern
allows may change, those next to it must, and no other row of the batch may. That takes a few hundred tokens, more than
any chunk, block or default window; at the cell's own length the op and the timed call itself are compared.

Letters: B batch, L length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from eval.speed.correctness import Finding, Tolerance, check_op, relative_error, tolerance
from eval.speed.layer_setting import LayerSetting
from eval.speed.op_setting import OpSetting
from eval.speed.work import arrays_of
from zoo.attention import Attention, VariantConfig, mechanism

logger = logging.getLogger(__name__)

MAX_LENGTH = 384
# Times a usual token: loud enough that whoever may attend to it does, in half of the heads at least.
_LOUD = 30.0
# Of the tokens that may see the loud one, this many next to it are asked whether they do. Others may have forgotten it
# (recurrent states decay) or look away, so half of them is enough.
_NEIGHBOURS = 8
# Past the borders of default windows and blocks.
_VETTING_LENGTH = 96


def check_layer(setting: LayerSetting, layer: Attention, timed: Callable[[], mx.array]) -> list[Finding]:
    """Checks a layer's forward pass.

    Args:
        setting: What is timed.
        layer: The layer that is timed.
        timed: The timed call's y_BLD.
    """
    bound = tolerance(setting.op.dtype)
    findings = check_op(setting.op, gradient=False)
    expected = layer(setting.hidden_states(), mask=setting.mask)
    error = relative_error(as_numpy(timed()), as_numpy(expected))
    findings.append(Finding(check="timed call equals the uncompiled layer", error=error, tolerance=bound.value))
    length = min(MAX_LENGTH, setting.op.length)
    x_BLD = setting.hidden_states(batch_size=2, length=length)
    reach_LS = reach([setting.op.variant], length, causal=setting.shape.causal)

    def apply(x_BLD: mx.array) -> mx.array:
        return layer(x_BLD, mask=setting.mask)

    findings += check_mixing(apply, x_BLD, _loud, bound, may_LS=reach_LS, direct_LS=reach_LS)
    findings += _check_projections(setting, layer, x_BLD, bound)
    return findings + _check_other_implementation(setting, layer, x_BLD, bound, gradient=False)


def check_layer_gradients(
    setting: LayerSetting, layer: Attention, timed: Callable[[], Sequence[mx.array]]
) -> list[Finding]:
    """Checks a layer's backward pass, beyond `check_layer`.

    Args:
        setting: What is timed.
        layer: The layer that is timed.
        timed: The timed call's gradients, of x and of every parameter.
    """
    bound = tolerance(setting.op.dtype)
    findings = check_op(setting.op, gradient=True)
    gradients = timed()
    missing = sum(not mx.isfinite(gradient).all().item() or not gradient.any().item() for gradient in gradients)
    # A single token leaves the softmax nothing to weigh, so q and k have no gradient.
    allowed = len(gradients) if setting.op.length == 1 else 0
    findings.append(
        Finding(check="every parameter gets a finite gradient", error=float(missing), tolerance=float(allowed))
    )
    pairs = zip(gradients, _uncompiled_gradients(setting, layer), strict=True)
    error = largest_distance([(as_numpy(mine), as_numpy(theirs)) for mine, theirs in pairs])
    check = "timed gradients equal those of the uncompiled layer"
    findings.append(Finding(check=check, error=error, tolerance=bound.gradient))
    x_BLD = setting.hidden_states(batch_size=2, length=min(MAX_LENGTH, setting.op.length))
    return findings + _check_other_implementation(setting, layer, x_BLD, bound, gradient=True)


def _uncompiled_gradients(setting: LayerSetting, layer: Attention) -> list[mx.array]:
    """As the timed call's, but taken of the layer's own tree of parameters."""
    own, cotangent_BLD = layer.parameters(), setting.cotangent()

    def weighted(x_BLD: mx.array, parameters: Any) -> mx.array:
        layer.update(parameters)
        return (layer(x_BLD, mask=setting.mask) * cotangent_BLD).astype(mx.float32).sum()

    gradients = mx.grad(weighted, argnums=(0, 1))(setting.hidden_states(), own)
    layer.update(own)
    return arrays_of(gradients)


def other_implementation(op: OpSetting) -> VariantConfig | None:
    """The variant with the mechanism's first other implementation that can do the same and passes the gate itself.

    None if there is none; a mistake in one implementation must not damn the others.
    """
    declared, variant = op.declared, op.variant
    for name in declared.implementations_here():
        able = declared.capabilities(variant.parameters, name)
        if name == variant.implementation or not (able.causal if op.causal else able.bidirectional):
            continue
        other = dataclasses.replace(variant, implementation=name)
        small = dataclasses.replace(op, variant=other, length=min(_VETTING_LENGTH, op.length), compiled=False)
        if _is_sound(small):
            return other
    return None


def _is_sound(op: OpSetting) -> bool:
    try:
        return all(finding.passed for finding in check_op(op, gradient=True))
    # Its own cell will say what is wrong with it, whatever a mechanism of any package may raise.
    except Exception:
        logger.debug("%s cannot vouch for another implementation", op.variant.implementation, exc_info=True)
        return False


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
    leak, other_row, deaf = 0.0, 0.0, 0.0
    for position in sorted({length // 2, length - 1}):
        after = as_numpy(function(overwrite(inputs_BL, position)))
        change_BL = _change(after, before)
        may, direct = may_LS[:, position], direct_LS[:, position]
        leak = max(leak, float(change_BL[0][~may].max(initial=0.0)))
        other_row = max(other_row, float(change_BL[1].max()))
        near = [query for query in _by_distance(position, length) if direct[query] and query != position][:_NEIGHBOURS]
        heard = change_BL[0][near] > 2 * bound.value
        deaf = max(deaf, float(len(near) > 0 and 2 * heard.sum() < len(near)))
    return [
        Finding(check="no output sees a token that it may not", error=leak, tolerance=bound.value),
        Finding(check="no other row of the batch changes", error=other_row, tolerance=bound.value),
        Finding(check="neighbours see a token that they may", error=deaf, tolerance=0.0),
    ]


def as_numpy(array: mx.array) -> np.ndarray:
    """Through float32, since NumPy has no bfloat16."""
    return np.array(array.astype(mx.float32))


def _by_distance(position: int, length: int) -> list[int]:
    return sorted(range(length), key=lambda query: abs(query - position))


def _loud(x_BLD: mx.array, position: int) -> mx.array:
    loud = mx.array(x_BLD)
    loud[0, position] = loud[0, position] * _LOUD
    return loud


def _change(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[B, L]: largest change of each output, over the root mean square of the output before."""
    if not np.isfinite(after).all():
        return np.full(before.shape[:2], np.inf)
    scale = np.sqrt(np.mean(np.square(before, dtype=np.float64), axis=-1))
    scale = np.maximum(scale, 1e-2 * scale.max())
    return np.abs(after - before).max(axis=-1) / scale


def _check_projections(setting: LayerSetting, layer: Attention, x_BLD: mx.array, bound: Tolerance) -> list[Finding]:
    """The layer against its own projections around the float64 reference, where it tells what goes into the op."""
    inputs = layer.op_inputs(x_BLD, mask=setting.mask)
    B, L, _ = x_BLD.shape
    op = dataclasses.replace(setting.op, batch_size=B, length=L)
    # The contract's tests refuse a layer that tells less than its op takes; to be timed it need not.
    if inputs is None or [array.shape for array in inputs] != [array.shape for array in op.inputs()]:
        return []
    spec = op.declared.make_spec(op.variant.parameters, setting.mask, op.head_dim, setting.shape.slopes)
    y_BNLH = op.declared.reference(*map(as_numpy, inputs), spec)
    expected = layer.output(x_BLD, mx.array(y_BNLH.astype(np.float32)).astype(op.dtype))
    error = relative_error(as_numpy(layer(x_BLD, mask=setting.mask)), as_numpy(expected))
    return [Finding(check="layer against its projections around the reference", error=error, tolerance=bound.value)]


def _check_other_implementation(
    setting: LayerSetting, layer: Attention, x_BLD: mx.array, bound: Tolerance, *, gradient: bool
) -> list[Finding]:
    other_variant = other_implementation(setting.op)
    if other_variant is None:
        return []
    other_setting = dataclasses.replace(setting, op=dataclasses.replace(setting.op, variant=other_variant))
    other = other_setting.layer()
    other.update(layer.parameters())
    name = f"{other_variant.implementation} under the same weights"
    if not gradient:
        error = relative_error(as_numpy(layer(x_BLD, mask=setting.mask)), as_numpy(other(x_BLD, mask=setting.mask)))
        return [Finding(check=f"values equal those of {name}", error=error, tolerance=bound.value)]
    B, L, _ = x_BLD.shape
    given = [setting.cotangent(batch_size=B, length=L), x_BLD, *setting.weights_of(layer)]
    pairs = zip(setting.backward_of(layer)(*given)[1], other_setting.backward_of(other)(*given)[1], strict=True)
    error = largest_distance([(as_numpy(mine), as_numpy(theirs)) for mine, theirs in pairs])
    return [Finding(check=f"gradients equal those of {name}", error=error, tolerance=bound.gradient)]


def largest_distance(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Largest norm of a difference over the norm of the second array, or over a thousandth of the largest norm."""
    largest = max(float(np.linalg.norm(theirs)) for _, theirs in pairs)
    errors = [
        float(np.linalg.norm(mine - theirs)) / (max(float(np.linalg.norm(theirs)), 1e-3 * largest) or 1.0)
        for mine, theirs in pairs
    ]
    return float("inf") if not np.isfinite(errors).all() else max(errors)
