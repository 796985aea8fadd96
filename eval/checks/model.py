"""The gate of a whole model: its ops are right, tokens mix as they may, and cached decoding equals the full forward.

What is timed is compared with the same model uncompiled: logits with those in float32, loss and gradients with those
in the same dtype, since half precision loses small gradients either way. Laws that small initial weights would hide
are tested on a copy of the model with weights of order 1, in float32, over a few hundred tokens.

Letters: B batch, L length.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_map, tree_unflatten

from eval.checks import (
    Finding,
    Tolerance,
    call_findings,
    gradients_finding,
    largest_distance,
    tolerance,
    values_finding,
)
from eval.checks.attention import check_mixing, check_op, other_implementation, reach, reached_finding
from eval.workloads import loss_and_gradients, mean_nats, named_arrays, scalar
from zoo.attention import LayerPattern
from zoo.models import Model, build_model
from zoo.ops.masks import MaskSpec

if TYPE_CHECKING:
    from eval.workloads.model import ModelSetting

MAX_LENGTH = 192
# Up to here the timed call itself is compared with the whole sequence at once; beyond, that would take many times
# what is timed.
MAX_FULL_LENGTH = 2048
# Tokens that follow the prefix one by one in the checks of cached decoding.
_STEPS = 3
# Rounding grows with the depth: each layer reads what the last one left, and adds its own.
_DEPTH_FACTOR = 2.0
# Of an update's norm: weights of order 1 round at 6e-8 when they move by 1e-4.
_UPDATE_TOLERANCE = 1e-2
_EQUAL_UNCOMPILED = "of the timed loss equal those of an uncompiled pass"


def check_model(setting: "ModelSetting", timed: list[Finding]) -> list[Finding]:
    """All that is checked of a model: its ops, what was found of the timed call, and the laws of its attention."""
    ops = [
        dataclasses.replace(finding, check=f"{op.variant.name}: {finding.check}")
        for op in setting.op_settings()
        for finding in check_op(op)
    ]
    return [*ops, *timed, *_check_laws(setting)]


def check_logits(setting: "ModelSetting", model: Model, timed: mx.array | list[mx.array]) -> list[Finding]:
    """Compares what a call returned with an uncompiled float32 model that reads all tokens at once.

    It is the logits of all tokens, or first of a list those of the last one.
    """
    cell = setting.cell
    if cell.mode != "forward" and cell.length > MAX_FULL_LENGTH:
        return []
    # The weights are those of the model as it rounded them.
    exact = build_model(model.config)
    exact.update(tree_map(lambda array: array.astype(mx.float32), model.parameters()))
    exact.eval()
    expected_BLV = exact(setting.changed(length=cell.length + (cell.mode == "decode")).tokens())
    bound = _bound(setting.dtype)
    if isinstance(timed, mx.array):
        return [values_finding("timed call against the uncompiled float32 model", timed, expected_BLV, bound)]
    compared = "timed logits (uncompiled, as all decoding)" if cell.mode == "decode" else "timed logits"
    return [values_finding(f"{compared} against a forward pass without a cache", timed[0], expected_BLV[:, -1:], bound)]


def check_gradients(setting: "ModelSetting", model: Model, timed: tuple[mx.array, Any]) -> list[Finding]:
    """Compares the timed call's loss and gradients with those of an uncompiled pass."""
    expected_loss, expected = _uncompiled(setting, model)
    found = timed[0][None], named_arrays(timed[1])
    return call_findings(_EQUAL_UNCOMPILED, found, (expected_loss[None], expected), _bound(setting.dtype))


def check_step(
    setting: "ModelSetting", model: Model, optimizer: AdamW, call: Callable[[], list[Any]], max_grad_norm: float
) -> list[Finding]:
    """Takes a training step and compares its loss, gradients and update with what they should be.

    AdamW divides a gradient by its own size, so that the rounding of a small one can turn its update round. Therefore
    the gradients that the step took, as its first moments tell, are compared with those of an uncompiled pass, and
    its update with AdamW's own for the gradients that it took.

    Args:
        setting: What is timed.
        model: What the step trains, from the moments that `optimizer` holds now.
        optimizer: That of the step.
        call: The timed call: nats, norm of the gradients and state.
        max_grad_norm: To which gradients are scaled down.
    """
    bound = _bound(setting.dtype)
    weights, before = named_arrays(model.parameters()), tree_map(lambda array: array, optimizer.state)
    expected_loss, expected = _uncompiled(setting, model)
    expected_norm = mx.sqrt(mx.stack([gradient.square().sum() for gradient in expected.values()]).sum())
    shrink = mx.minimum(max_grad_norm / (expected_norm + 1e-6), 1.0)
    nats, norm, _ = call()
    mx.eval(nats, norm, model.parameters(), optimizer.state)
    loss = nats / setting.batch()["weights_P"].sum()
    moved, after, moments = named_arrays(model.parameters()), named_arrays(optimizer.state), named_arrays(before)

    decay, _ = optimizer.betas
    taken = {name: (after[f"{name}.m"] - decay * moments[f"{name}.m"]) / (1 - decay) for name in expected}
    again = AdamW(optimizer.learning_rate, optimizer.betas, optimizer.eps, optimizer.weight_decay)
    again.state = before
    wanted = named_arrays(again.apply_gradients(_tree(taken), _tree(weights)))
    roots = [{name: mx.sqrt(state[f"{name}.v"]) for name in expected} for state in (after, named_arrays(again.state))]
    updates = [{name: each[name] - weights[name] for name in expected} for each in (moved, wanted)]
    error = max(largest_distance(*updates), largest_distance(*roots))
    shrunk = {name: shrink * gradient for name, gradient in expected.items()}
    return [
        *call_findings(_EQUAL_UNCOMPILED, (loss[None], taken), (expected_loss[None], shrunk), bound),
        gradients_finding("timed gradient norm against an uncompiled pass", norm, expected_norm, bound),
        Finding(check="timed update is AdamW's", error=error, tolerance=_UPDATE_TOLERANCE),
    ]


def check_tokens(model: Model, tokens_BL: mx.array, *, second_L: np.ndarray | None = None) -> list[Finding]:
    """Whether tokens mix as a model's attention allows: none leaks, neighbours are heard, rows are apart.

    Args:
        model: In evaluation mode; its weights have to be large enough that tokens are heard.
        tokens_BL: Two rows.
        second_L: Which positions belong to a second document of each row; None for one document.
    """
    config, length = model.config, tokens_BL.shape[1]
    # Through several layers a token reaches further than its pattern says; only the future and others stay closed.
    may_LS = np.tri(length, dtype=bool) if config.causal else np.ones((length, length), dtype=bool)
    direct_LS = reach(config.attention.variants(), length, causal=config.causal)
    mask = None
    if second_L is not None:
        segments_BL = mx.broadcast_to(mx.array(second_L.astype(np.int32)), tokens_BL.shape)
        mask = MaskSpec(causal=config.causal, segments_BL=segments_BL)
        same_LS = np.equal.outer(second_L, second_L)
        may_LS, direct_LS = may_LS & same_LS, direct_LS & same_LS

    def another(tokens_BL: mx.array, position: int) -> mx.array:
        changed = mx.array(tokens_BL)
        changed[0, position] = (changed[0, position] + 1) % config.vocab_size
        return changed

    function = functools.partial(model, mask=mask)
    given = function, tokens_BL, function(tokens_BL), another, _bound(mx.float32)
    return check_mixing(*given, may_LS=may_LS, direct_LS=direct_LS)


def check_continuation(model: Model, tokens_BL: mx.array) -> Finding:
    """Whether a prefix at once and then a few tokens one by one give what the whole sequence gives at once."""
    length = tokens_BL.shape[1]
    prefix, cache = max(1, length - _STEPS), model.make_cache()
    pieces = [model(tokens_BL[:, :prefix], cache=cache)]
    pieces += [model(tokens_BL[:, at : at + 1], cache=cache) for at in range(prefix, length)]
    check = "prefill and decoding equal the full forward pass"
    return values_finding(check, mx.concatenate(pieces, axis=1), model(tokens_BL), _bound(mx.float32))


def _bound(dtype: mx.Dtype) -> Tolerance:
    return tolerance(dtype, factor=_DEPTH_FACTOR)


def _uncompiled(setting: "ModelSetting", model: Model) -> tuple[mx.array, dict[str, mx.array]]:
    """Mean nats and gradients by name, on the setting's own batch; evaluated."""
    loss, gradients = loss_and_gradients(model, setting.batch(), setting.dtype)
    mx.eval(loss, gradients)
    return loss, named_arrays(gradients)


def _check_laws(setting: "ModelSetting") -> list[Finding]:
    """What holds of any model, asked of the setting's own in float32 with weights of order 1, so that all matter.

    Causality, mixing and rows, gradients and decoding as the mode has them, and the same with other implementations.
    """
    small = setting.changed(dtype="float32", batch_size=2, length=min(MAX_LENGTH, setting.cell.length))
    bound, model, tokens_BL = _bound(mx.float32), small.model(), small.tokens()
    model.eval()
    weights = named_arrays(model.parameters())
    for index, (name, array) in enumerate(weights.items()):
        if array.ndim == 2:
            weights[name] = small.normal(*array.shape, stream=index) * array.shape[-1] ** -0.5
    model.update(_tree(weights))
    other = _with_other_implementations(small, model)
    findings = check_tokens(model, tokens_BL)
    found = _called(small, model)
    if setting.gradient:
        findings.append(reached_finding(found[1], functools.partial(_matters, small, model)))
    if other is not None:
        check = "equal those of other implementations under the same weights"
        findings += call_findings(check, found, _called(small, other), bound)
    if setting.cell.mode in ("prefill", "decode"):
        findings.append(check_continuation(model, small.changed(length=small.cell.length + _STEPS).tokens()))
    return findings


def _called(setting: "ModelSetting", model: Model) -> Any:
    """Logits and, if the cell's mode has them, gradients."""
    logits_BLV = model(setting.tokens())
    return (logits_BLV, _uncompiled(setting, model)[1]) if setting.gradient else logits_BLV


def _matters(setting: "ModelSetting", model: Model, name: str) -> bool:
    """Whether a weight changes the loss; a pooler outside it does not, nor a bias of keys that the softmax cancels."""
    batch, weight = setting.batch(), named_arrays(model.parameters())[name]
    before = mean_nats(model, batch)
    # Random, since a layer norm cancels what moves all weights of an output alike.
    model.update(_tree({name: weight + mx.random.normal(weight.shape, key=mx.random.key(setting.cell.seed))}))
    change = scalar(mx.abs(mean_nats(model, batch) - before))
    model.update(_tree({name: weight}))
    return not change <= _bound(mx.float32).value


def _tree(arrays: Mapping[str, mx.array]) -> Any:
    return tree_unflatten(list(arrays.items()))


def _with_other_implementations(setting: "ModelSetting", model: Model) -> Model | None:
    """The model with other implementations where there are any, and the same weights."""
    config = setting.config
    layers = [config.attention.layer(index) for index in range(config.num_layers)]
    found = {op.variant.name: other_implementation(op) for op in setting.op_settings()}
    others = [found[layer.name] or layer for layer in layers]
    if others == layers:
        return None
    pattern = LayerPattern(name=config.attention.name, layer_pattern=tuple(others))
    other = build_model(dataclasses.replace(config, attention=pattern))
    other.update(model.parameters())
    other.eval()
    return other
