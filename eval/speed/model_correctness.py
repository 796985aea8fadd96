"""The gate of a whole model: its ops are right, tokens mix as they may, and cached decoding equals the full forward.

What is timed is compared with the same model uncompiled: logits with those in float32, loss and gradients with those
in the same dtype, since half precision loses small gradients either way. Laws that small initial weights would hide
are tested on a copy of the model with weights of order 1, in float32, over a few hundred tokens.

Letters: B batch, L length.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_map, tree_unflatten

from eval.speed.correctness import Finding, Tolerance, check_op, relative_error, tolerance
from eval.speed.layer_correctness import as_numpy, check_mixing, largest_distance, other_implementation, reach
from eval.speed.model_setting import ModelSetting
from eval.speed.work import are_finite, named_arrays, scalar
from zoo.attention import LayerPattern
from zoo.models import Model, build_model
from zoo.ops.masks import MaskSpec
from zoo.training.loss import summed_nats
from zoo.training.step import cast_floats

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
_TINY = 1e-30


def check_forward(setting: ModelSetting, model: Model, logits_BLV: mx.array) -> list[Finding]:
    """Checks a forward pass, given the timed call's logits."""
    findings = _check_ops(setting, gradient=False)
    expected = _in_float32(model)(setting.tokens())
    findings.append(_against("timed call against the uncompiled float32 model", logits_BLV, expected, setting))
    return findings + _check_laws(setting)


def check_gradients(setting: ModelSetting, model: Model, timed: tuple[mx.array, Any]) -> list[Finding]:
    """Checks a forward and backward pass, given the timed call's loss and gradients."""
    expected_loss, expected = _uncompiled(setting, model)
    findings = _check_ops(setting, gradient=True)
    findings.append(_loss_finding(timed[0], expected_loss, setting))
    findings.append(_gradient_finding(named_arrays(timed[1]), expected, setting))
    return findings + _check_laws(setting) + _check_gradient_laws(setting)


def check_step(
    setting: ModelSetting,
    model: Model,
    optimizer: AdamW,
    call: Callable[[], list[Any]],
    *,
    max_grad_norm: float,
) -> list[Finding]:
    """Checks a training step by taking one.

    AdamW divides a gradient by its own size, so that the rounding of a small one can turn its update round. Therefore
    the gradients that the step took, as its first moments tell, are compared with those of an uncompiled pass, and
    its update with AdamW's own for the gradients that it took.

    Args:
        setting: What is timed.
        model: The model that is timed.
        optimizer: That of the step.
        call: The timed call: nats, norm of the gradients and state.
        max_grad_norm: To which gradients are scaled down.
    """
    weights, moments = named_arrays(model.parameters()), named_arrays(optimizer.state)
    expected_loss, expected = _uncompiled(setting, model)
    expected_norm = mx.sqrt(mx.stack([gradient.square().sum() for gradient in expected.values()]).sum())
    shrink = mx.minimum(max_grad_norm / (expected_norm + 1e-6), 1.0)
    nats, norm, _ = call()
    mx.eval(nats, norm, model.parameters(), optimizer.state)
    moved, moved_moments = named_arrays(model.parameters()), named_arrays(optimizer.state)
    findings = _check_ops(setting, gradient=True)
    findings.append(_loss_finding(nats / setting.batch()["weights_P"].sum(), expected_loss, setting))
    error = abs(scalar(norm) / max(scalar(expected_norm), _TINY) - 1)
    check = "timed gradient norm against an uncompiled pass"
    findings.append(Finding(check=check, error=error, tolerance=_DEPTH_FACTOR * tolerance(setting.dtype).gradient))

    decay, square_decay = optimizer.betas
    taken, updates, squares = {}, [], []
    for name in expected:
        first, second = moved_moments[f"{name}.m"], moved_moments[f"{name}.v"]
        taken[name] = (first - decay * moments[f"{name}.m"]) / (1 - decay)
        square = square_decay * moments[f"{name}.v"] + (1 - square_decay) * taken[name].square()
        direction = optimizer.weight_decay * weights[name] + first / (mx.sqrt(square) + optimizer.eps)
        updates.append((as_numpy(moved[name] - weights[name]), as_numpy(-optimizer.learning_rate * direction)))
        squares.append((as_numpy(mx.sqrt(second)), as_numpy(mx.sqrt(square))))
    findings.append(_gradient_finding(taken, {name: shrink * each for name, each in expected.items()}, setting))
    error = max(largest_distance(updates), largest_distance(squares))
    findings.append(Finding(check="timed update is AdamW's", error=error, tolerance=_UPDATE_TOLERANCE))
    return findings + _check_laws(setting) + _check_gradient_laws(setting)


def check_prefill(setting: ModelSetting, model: Model, logits_B1V: mx.array) -> list[Finding]:
    """Checks a prefill, given the timed call's logits of the last token."""
    findings = _check_ops(setting, gradient=False) + _check_laws(setting) + _check_decoding(setting)
    if setting.length <= MAX_FULL_LENGTH:
        expected = _in_float32(model)(setting.tokens())[:, -1:]
        findings.append(_against("timed logits against a forward pass without a cache", logits_B1V, expected, setting))
    return findings


def check_decode(setting: ModelSetting, model: Model, logits_B1V: mx.array) -> list[Finding]:
    """Checks decoding, given the first call's logits of token L + 1; decoding is not compiled."""
    findings = _check_ops(setting, gradient=False) + _check_laws(setting) + _check_decoding(setting)
    if setting.length <= MAX_FULL_LENGTH:
        expected = _in_float32(model)(setting.tokens(length=setting.length + 1))[:, -1:]
        check = "timed logits (uncompiled, as all decoding) against a forward pass without a cache"
        findings.append(_against(check, logits_B1V, expected, setting))
    return findings


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

    def function(tokens_BL: mx.array) -> mx.array:
        return model(tokens_BL, mask=mask)

    return check_mixing(function, tokens_BL, another, _bound(), may_LS=may_LS, direct_LS=direct_LS)


def check_continuation(model: Model, tokens_BL: mx.array) -> Finding:
    """Whether a prefix at once and then a few tokens one by one give what the whole sequence gives at once."""
    length = tokens_BL.shape[1]
    prefix, cache = max(1, length - _STEPS), model.make_cache()
    pieces = [model(tokens_BL[:, :prefix], cache=cache)]
    pieces += [model(tokens_BL[:, at : at + 1], cache=cache) for at in range(prefix, length)]
    error = relative_error(as_numpy(mx.concatenate(pieces, axis=1)), as_numpy(model(tokens_BL)))
    check = "prefill and decoding equal the full forward pass"
    return Finding(check=check, error=error, tolerance=_bound().value)


def _check_ops(setting: ModelSetting, *, gradient: bool) -> list[Finding]:
    return [
        dataclasses.replace(finding, check=f"{op.variant.name}: {finding.check}")
        for op in setting.op_settings()
        for finding in check_op(op, gradient=gradient)
    ]


def _uncompiled(setting: ModelSetting, model: Model) -> tuple[mx.array, dict[str, mx.array]]:
    """Mean nats and gradients by name, of a copy of the model on the setting's own batch; evaluated."""
    copy, batch = build_model(model.config), setting.batch()
    copy.train(model.training)

    def loss(parameters: Any) -> mx.array:
        copy.update(cast_floats(parameters, setting.dtype))
        return summed_nats(copy, batch, causal=setting.config.causal) / batch["weights_P"].sum()

    found, gradients = mx.value_and_grad(loss)(model.trainable_parameters())
    mx.eval(found, gradients)
    return found, named_arrays(gradients)


def _loss_finding(timed: mx.array, expected: mx.array, setting: ModelSetting) -> Finding:
    error = abs(scalar(timed) / max(abs(scalar(expected)), _TINY) - 1)
    check = "timed loss against an uncompiled pass"
    return Finding(check=check, error=error, tolerance=_DEPTH_FACTOR * tolerance(setting.dtype).value)


def _gradient_finding(timed: dict[str, mx.array], expected: dict[str, mx.array], setting: ModelSetting) -> Finding:
    missing = sorted(expected.keys() ^ timed.keys())
    pairs = [(as_numpy(timed[name]), as_numpy(each)) for name, each in expected.items() if name in timed]
    error = float("inf") if missing else largest_distance(pairs)
    check = "timed gradients against an uncompiled pass"
    return Finding(check=check, error=error, tolerance=_DEPTH_FACTOR * tolerance(setting.dtype).gradient)


def _against(check: str, actual: mx.array, expected: mx.array, setting: ModelSetting) -> Finding:
    error = relative_error(as_numpy(actual), as_numpy(expected))
    return Finding(check=check, error=error, tolerance=_DEPTH_FACTOR * tolerance(setting.dtype).value)


def _bound() -> Tolerance:
    own = tolerance(mx.float32)
    return Tolerance(value=_DEPTH_FACTOR * own.value, gradient=_DEPTH_FACTOR * own.gradient)


def _check_laws(setting: ModelSetting) -> list[Finding]:
    """Causality, mixing, rows, and the same model with another implementation."""
    model = _vivid(setting)
    tokens_BL = setting.tokens(batch_size=2, length=min(MAX_LENGTH, setting.length))
    findings = check_tokens(model, tokens_BL)
    other = _with_other_implementations(setting, model)
    if other is not None:
        error = relative_error(as_numpy(model(tokens_BL)), as_numpy(other(tokens_BL)))
        check = "logits equal those of other implementations under the same weights"
        findings.append(Finding(check=check, error=error, tolerance=_bound().value))
    return findings


def _check_gradient_laws(setting: ModelSetting) -> list[Finding]:
    """Every parameter that has an effect gets a gradient, and other implementations get the same."""
    model = _vivid(setting)
    batch = setting.batch(batch_size=2, length=min(MAX_LENGTH, setting.length))

    def loss(model: Model, parameters: Any) -> mx.array:
        model.update(parameters)
        return summed_nats(model, batch, causal=setting.config.causal) / batch["weights_P"].sum()

    def gradients_of(model: Model) -> dict[str, mx.array]:
        own = model.parameters()
        found = named_arrays(mx.grad(lambda parameters: loss(model, parameters))(own))
        model.update(own)
        return found

    gradients = gradients_of(model)
    weights = named_arrays(model.parameters())
    before = loss(model, tree_unflatten(list(weights.items())))
    deaf = []
    for name, gradient in gradients.items():
        if are_finite(gradient) and gradient.any().item():
            continue
        # Random, since a layer norm cancels what moves all weights of an output alike.
        noise = mx.random.normal(gradient.shape, key=mx.random.key(setting.seed))
        moved = {**weights, name: weights[name] + noise}
        change = scalar(mx.abs(loss(model, tree_unflatten(list(moved.items()))) - before))
        # Some have no effect: a pooler outside the loss, a bias of keys that the softmax cancels.
        if not change <= _bound().value:
            deaf.append(name)
    model.update(tree_unflatten(list(weights.items())))
    text = "every parameter that matters gets a finite gradient" + (f", not {', '.join(deaf)}" if deaf else "")
    findings = [Finding(check=text, error=float(len(deaf)), tolerance=0.0)]
    other = _with_other_implementations(setting, model)
    if other is not None:
        theirs = gradients_of(other)
        error = largest_distance([(as_numpy(gradients[name]), as_numpy(theirs[name])) for name in gradients])
        check = "gradients equal those of other implementations under the same weights"
        findings.append(Finding(check=check, error=error, tolerance=_bound().gradient))
    return findings


def _check_decoding(setting: ModelSetting) -> list[Finding]:
    """A prefix at once and then token by token, against the whole sequence at once."""
    tokens_BL = setting.tokens(batch_size=2, length=min(MAX_LENGTH, setting.length) + _STEPS)
    return [check_continuation(_vivid(setting), tokens_BL)]


def _vivid(setting: ModelSetting) -> Model:
    """The setting's model in float32 with random weights of order 1, so that every branch matters."""
    model = dataclasses.replace(setting, dtype=mx.float32).model()
    model.eval()
    key = mx.random.key(setting.seed)

    def lively(index: int, array: mx.array) -> mx.array:
        if array.ndim != 2:
            return array
        noise = mx.random.normal(array.shape, key=mx.random.split(key, num=index + 1)[index])
        return noise * array.shape[-1] ** -0.5

    named = named_arrays(model.parameters())
    model.update(tree_unflatten([(name, lively(index, named[name])) for index, name in enumerate(named)]))
    mx.eval(model.parameters())
    return model


def _in_float32(model: Model) -> Model:
    """An uncompiled copy, whose weights are those of the model as it rounded them."""
    copy = build_model(model.config)
    copy.update(tree_map(lambda array: array.astype(mx.float32), model.parameters()))
    copy.eval()
    return copy


def _with_other_implementations(setting: ModelSetting, model: Model) -> Model | None:
    attention = setting.config.attention
    layers = [attention.layer(index) for index in range(setting.config.num_layers)]
    in_float32 = [dataclasses.replace(op, dtype=mx.float32) for op in setting.op_settings()]
    found = {op.variant.name: other_implementation(op) for op in in_float32}
    others = [found[layer.name] or layer for layer in layers]
    if others == layers:
        return None
    pattern = LayerPattern(name=attention.name, layer_pattern=tuple(others))
    other = build_model(dataclasses.replace(setting.config, attention=pattern))
    other.update(model.parameters())
    other.eval()
    return other
