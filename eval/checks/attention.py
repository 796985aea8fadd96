"""The gates of an op and of a layer: a call is timed only if it computes what its mechanism's float64 reference says.

An op is compared by the very function that is timed, compiled or not, on the very arrays. Where heads and rows are
independent by the mechanism's definition, the reference sees one head of one row at a time, so that a mix-up of axes
cannot hide: the first head of the first row, and the last and the second of the last row, since heads that repeat in
another order differ only between the ends. Heads that know of each other are compared together, and a call whose inputs
cannot be told apart by row as a whole. Gradients are compared by a directional derivative: <gradient, direction>
against the central difference of the reference.

A layer must also mask and project right: a few hundred tokens show which of them mix.

Letters: B batch, L length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from eval.checks import Finding, Tolerance, as_numpy, call_findings, relative_errors, tolerance, values_finding
from eval.workloads import UNIMPORTANT, are_finite, arrays_of, named_arrays
from zoo.attention import Attention, VariantConfig, mechanism

if TYPE_CHECKING:
    from eval.workloads.attention import AttentionSetting

logger = logging.getLogger(__name__)

# The reference holds several L x L arrays of float64: 134 MB each here. Beyond, the first tokens are compared.
MAX_REFERENCE_LENGTH = 4096
# Longest text on which the mixing of a layer is tested. Of the widest shipped patterns, windows of 128 and of 64 with
# every second key, the token in the middle is out of reach on either side; later ones begin a tile of 128 and blocks.
MAX_MIXING_LENGTH = 288
# Past the borders of default windows and blocks.
_VETTING_LENGTH = 96
# Times a usual token: loud enough that whoever may attend to it does, in half of the heads at least.
_AMPLIFICATION = 30.0
# Of the tokens that may see the loud one, this many next to it are asked whether they do. Others may have forgotten it
# (recurrent states decay) or look away, so half of them is enough.
_NEIGHBOURS = 8
# What is compared together: rows of the batch, query heads of them, and their first tokens.
Place = tuple[slice, slice, slice]
_ALL = slice(None)
# Step and weights of the central difference: truncation and rounding of the reference both stay near 1e-8. A reference
# that calls a mechanism's own function of the scores is right to 4e-8 only, as MLX's exponential in float64 is; there a
# longer step drowns that, and a difference of fourth order keeps the truncation small.
_SECOND_ORDER = 1e-4, {1: 1 / 2, -1: -1 / 2}
_FOURTH_ORDER = 1e-2, {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}


def check_op(setting: "AttentionSetting", timed: Callable[..., Any] | None = None) -> list[Finding]:
    """Compares an op with its mechanism's reference: its values and, if the cell's mode has them, its gradients.

    Above `reference_length` tokens the first of the timed call are compared where the future is hidden, and otherwise
    the same op on that many; all of the timed call must be finite. `timed` is the function that is timed, if it is not
    made anew.
    """
    function = timed or setting.function()
    full, length = setting.cell.length, reference_length(setting)
    # No output knows how long a text is whose future is hidden: its first tokens are those of a shorter one.
    is_cut = setting.shape.causal and setting.has_rows
    findings = _compare(setting if is_cut else setting.changed(length=min(full, length)), length, function)
    if full <= length:
        return findings
    long = f"at length {length}, not {full}: the reference's arrays grow with its square"
    note = f"first {length} tokens of the timed call" if is_cut else long
    is_finite = are_finite(function(*setting.arguments()))
    noted = [dataclasses.replace(finding, check=f"{finding.check} ({note})") for finding in findings]
    return [*noted, Finding(check="all of the timed call is finite", error=float(not is_finite), tolerance=0.0)]


def reference_length(setting: "AttentionSetting") -> int:
    """Longest text that is compared: `MAX_REFERENCE_LENGTH` for one head of one row, shorter for several at once."""
    heads = 1 if setting.declared.separate_heads else setting.shape.num_heads
    together = heads if setting.has_rows else setting.shape.num_heads * setting.cell.batch_size
    return max(1, int(MAX_REFERENCE_LENGTH / together**0.5))


def _compare(setting: "AttentionSetting", length: int, function: Callable[..., Any]) -> list[Finding]:
    """The first `length` tokens of a call against the reference: values and, if they are right, gradients."""
    places, bound = _places(setting, length), tolerance(setting.dtype)
    given = setting.arguments()
    inputs = given[-len(setting.axes) :]
    if setting.gradient:
        # Outputs elsewhere have no weight, so that no gradient may reach anything else.
        weights_BNLH = mx.zeros_like(given[0])
        weights_BNLH[places[-1]] = given[0][places[-1]]
        given[0] = weights_BNLH
    found = function(*given)
    y_BNLH = found[0] if setting.gradient else found
    if y_BNLH.shape != setting.output_shape:
        text = f"output shape {y_BNLH.shape} instead of {setting.output_shape}"
        return [Finding(check=text, error=float("inf"), tolerance=bound.value)]
    errors = [
        relative_errors(as_numpy(y_BNLH[place]), setting.reference(_sliced(setting, inputs, place))) for place in places
    ]
    error = float(max(each.max() for each in errors))
    values = Finding(check="values against the float64 reference", error=error, tolerance=bound.value)
    if not (setting.gradient and values.passed):
        return [values]
    return [values, *_compare_gradients(setting, places[-1], given, found[1], bound.gradient)]


def _places(setting: "AttentionSetting", length: int) -> list[Place]:
    """What is compared; the gradient is asked for through the last."""
    tokens = slice(length)
    if not setting.has_rows:
        return [(_ALL, _ALL, tokens)]
    batch_size, num_heads = setting.cell.batch_size, setting.shape.num_heads
    first, last = slice(0, 1), slice(batch_size - 1, batch_size)
    if not setting.declared.separate_heads:
        return [(first, _ALL, tokens), (last, _ALL, tokens)]
    places = (first, 0), (last, num_heads - 1), (last, min(1, num_heads - 1))
    return [(rows, slice(head, head + 1), tokens) for rows, head in places]


def _cuts(setting: "AttentionSetting", place: Place) -> list[tuple[slice, ...]]:
    """What the outputs of a place depend on, in each input array."""
    rows, heads, tokens = place
    kv_heads = heads
    if heads != _ALL:
        shared = heads.start * setting.num_kv_heads // setting.shape.num_heads
        kv_heads = slice(shared, shared + 1)
    cut = {"B": rows, "N": heads, "K": kv_heads, "L": tokens if setting.has_rows else _ALL}
    return [tuple(cut.get(axis, _ALL) for axis in axes) for axes in setting.axes]


def _sliced(setting: "AttentionSetting", arrays: Sequence[mx.array], place: Place) -> list[np.ndarray]:
    """The same as float64 arrays of the place's rows and heads alone."""
    return [as_numpy(array[cut], np.float64) for array, cut in zip(arrays, _cuts(setting, place), strict=True)]


def _compare_gradients(
    setting: "AttentionSetting", place: Place, given: list[mx.array], gradients: list[mx.array], bound: float
) -> list[Finding]:
    """One directional derivative through what is compared together, and no gradient anywhere else."""
    weights_BNLH, *arrays = given
    inside, inputs = (_sliced(setting, each, place) for each in (gradients, arrays))
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
    longest, shares = _SECOND_ORDER if setting.declared.separate_heads else _FOURTH_ORDER
    step = longest / max(1.0, *(float(np.abs(way).max()) for way in directions))
    cotangent, expected = as_numpy(weights_BNLH[place], np.float64), 0.0
    for steps, share in shares.items():
        moved = [array + steps * step * way for array, way in zip(inputs, directions, strict=True)]
        expected += share * float((setting.reference(moved) * cotangent).sum()) / step
    # A derivative along a random direction is of the order of the gradient's norm, which is 1 per array here.
    error = abs(actual - expected) / len(inside) ** 0.5
    for gradient, cut in zip(gradients, _cuts(setting, place), strict=True):
        gradient[cut] = 0
    outside = max(float(np.abs(as_numpy(gradient)).max()) for gradient in gradients)
    leaked = outside / (max(float(np.abs(gradient).max()) for gradient in inside) or 1.0)
    return [
        Finding(check="gradients against the reference's directional derivative", error=error, tolerance=bound),
        Finding(check="no gradient in other heads, rows and later tokens", error=leaked, tolerance=bound),
    ]


def other_implementation(op: "AttentionSetting") -> VariantConfig | None:
    """The variant with the mechanism's first other implementation that can do the same and passes the gate itself.

    None if there is none; a mistake in one implementation must not damn the others.
    """
    # The same for all cells of a group, so that it is asked once.
    asked = {**UNIMPORTANT, "attention": None, "compiled": False, "mode": "forward_backward"}
    small = op.changed(**asked, length=min(_VETTING_LENGTH, op.cell.length))
    for name in op.declared.implementations_here():
        able = op.declared.capabilities(op.variant.parameters, name)
        if name == op.variant.implementation or not (able.causal if op.shape.causal else able.bidirectional):
            continue
        other = dataclasses.replace(op.variant, implementation=name)
        if _passes(dataclasses.replace(small, variant=dataclasses.replace(other, name=""))):
            return other
    return None


@functools.cache
def _passes(setting: "AttentionSetting") -> bool:
    try:
        return all(finding.passed for finding in check_op(setting))
    # Its own cell will say what is wrong with it, whatever a mechanism of any package may raise.
    except Exception:
        logger.debug("%s cannot vouch for another implementation", setting.variant.implementation, exc_info=True)
        return False


def check_layer(setting: "AttentionSetting", layer: Attention, timed: Any) -> list[Finding]:
    """Checks a layer by what its timed call returned: y_BLD and, if the cell's mode has them, the gradients."""
    bound, mask = tolerance(setting.dtype), setting.mask
    small = setting.changed(batch_size=2, length=min(MAX_MIXING_LENGTH, setting.cell.length))
    # Once, for all that is asked of it.
    x_BLD, given = small.hidden_states(), small.layer_arguments(layer)
    found = small.layer_function(layer)(*given)
    y_BLD = found[0] if setting.gradient else found
    reach_LS = reach([setting.variant], small.cell.length, causal=mask.causal)
    function = functools.partial(layer, mask=mask)
    findings = [
        *check_op(setting),
        *call_findings("of the timed call equal the uncompiled layer's", timed, _uncompiled(setting, layer), bound),
        *check_mixing(function, x_BLD, y_BLD, amplified, bound, may_LS=reach_LS, direct_LS=reach_LS),
        *_check_projections(small, layer, x_BLD, y_BLD),
    ]
    if setting.gradient:
        names = ["x", *named_arrays(layer.parameters())]
        # A single token leaves the softmax nothing to weigh, so q and k have no gradient.
        reached = reached_finding(dict(zip(names, timed[1], strict=True)), lambda _: setting.cell.length > 1)
        findings.append(reached)
    variant = other_implementation(setting)
    if variant is not None:
        other = dataclasses.replace(small, variant=variant).layer()
        theirs = small.layer_function(other)(*given)
        findings += call_findings(
            f"equal those of {variant.implementation} under the same weights", found, theirs, bound
        )
    return findings


def _uncompiled(setting: "AttentionSetting", layer: Attention) -> Any:
    """As the timed call's, but with the gradients taken of the layer's own tree of parameters."""
    if not setting.gradient:
        return layer(setting.hidden_states(), mask=setting.mask)
    own, (weights_BLD, x_BLD, *_) = layer.parameters(), setting.layer_arguments(layer)

    def weighted(x_BLD: mx.array, parameters: Any) -> tuple[mx.array, mx.array]:
        layer.update(parameters)
        y_BLD = layer(x_BLD, mask=setting.mask)
        return (y_BLD * weights_BLD).astype(mx.float32).sum(), y_BLD

    (_, y_BLD), gradients = mx.value_and_grad(weighted, argnums=(0, 1))(x_BLD, own)
    layer.update(own)
    return y_BLD, arrays_of(gradients)


def reached_finding(gradients: Mapping[str, mx.array], matters: Callable[[str], bool]) -> Finding:
    """Whether every array that matters has a gradient, and a finite one."""
    missing = [
        name
        for name, gradient in gradients.items()
        if not (are_finite(gradient) and gradient.any().item()) and matters(name)
    ]
    check = "every parameter that matters gets a finite gradient"
    check += f", not {', '.join(missing)}" if missing else ""
    return Finding(check=check, error=float(len(missing)), tolerance=0.0)


def _check_projections(
    setting: "AttentionSetting", layer: Attention, x_BLD: mx.array, y_BLD: mx.array
) -> list[Finding]:
    """The layer against its own projections around the float64 reference, where it tells what goes into the op."""
    inputs = layer.op_inputs(x_BLD, mask=setting.mask)
    # The contract's tests refuse a layer that tells less than its op takes; to be timed it need not.
    if inputs is None or [array.ndim for array in inputs] != [len(axes) for axes in setting.axes]:
        return []
    y_BNLH = setting.declared.reference(*map(as_numpy, inputs), setting.spec(setting.shape.slopes))
    expected_BLD = layer.output(x_BLD, mx.array(y_BNLH.astype(np.float32)).astype(setting.dtype))
    check = "layer against its projections around the reference"
    return [values_finding(check, y_BLD, expected_BLD, tolerance(setting.dtype))]


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
    outputs_BL: mx.array,
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
        outputs_BL: What it returns for them.
        overwrite: Returns the inputs with another token at a position of row 0.
        bound: Tolerances of the outputs.
        may_LS: Which outputs may depend on which inputs.
        direct_LS: Which do so within one layer, by `reach`.
    """
    length, before = inputs_BL.shape[1], as_numpy(outputs_BL)
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
    changed_BLD = mx.array(x_BLD)
    changed_BLD[0, position] *= _AMPLIFICATION
    return changed_BLD
