"""The gate of a whole model: its ops are right, tokens mix as they may, and cached decoding equals the full forward.

What is timed is compared with the same model uncompiled: logits with those in float32, loss and gradients with those
in the same dtype, since half precision loses small gradients either way. Laws that small initial weights would hide
are tested on a copy of the model with weights of order 1, in float32, over a few hundred tokens.

Letters: B batch, L length.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_map, tree_unflatten

from eval.checks import Finding, Tolerance, gradients_finding, largest_distance, tolerance, values_finding
from eval.checks.layer import check_mixing, other_implementation, reach
from eval.checks.op import check_op
from eval.workloads import are_finite, loss_and_gradients, mean_nats, named_arrays, scalar
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
_TINY = 1e-30


def check_forward(setting: "ModelSetting", model: Model, logits_BLV: mx.array) -> list[Finding]:
    """Checks a forward pass, given the timed call's logits."""
    expected = _in_float32(model)(setting.tokens())
    check = "timed call against the uncompiled float32 model"
    timed = values_finding(check, logits_BLV, expected, _bound(setting.dtype))
    return [*_check_ops(setting, gradient=False), timed, *_Laws(setting).of_values()]


def check_gradients(setting: "ModelSetting", model: Model, timed: tuple[mx.array, Any]) -> list[Finding]:
    """Checks a forward and backward pass, given the timed call's loss and gradients."""
    expected_loss, expected = _uncompiled(setting, model)
    loss = _ratio_finding("timed loss against an uncompiled pass", timed[0], expected_loss, _bound(setting.dtype).value)
    laws = _Laws(setting)
    return [
        *_check_ops(setting, gradient=True),
        loss,
        _gradient_finding(named_arrays(timed[1]), expected, setting),
        *laws.of_values(),
        *laws.of_gradients(),
    ]


def check_step(
    setting: "ModelSetting",
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
    bound = _bound(setting.dtype)
    weights, moments = named_arrays(model.parameters()), named_arrays(optimizer.state)
    expected_loss, expected = _uncompiled(setting, model)
    expected_norm = mx.sqrt(mx.stack([gradient.square().sum() for gradient in expected.values()]).sum())
    shrink = mx.minimum(max_grad_norm / (expected_norm + 1e-6), 1.0)
    nats, norm, _ = call()
    mx.eval(nats, norm, model.parameters(), optimizer.state)
    moved, moved_moments = named_arrays(model.parameters()), named_arrays(optimizer.state)
    loss = nats / setting.batch()["weights_P"].sum()

    decay, square_decay = optimizer.betas
    taken, updates, directions, roots, expected_roots = {}, [], [], [], []
    for name in expected:
        first, second = moved_moments[f"{name}.m"], moved_moments[f"{name}.v"]
        taken[name] = (first - decay * moments[f"{name}.m"]) / (1 - decay)
        root = mx.sqrt(square_decay * moments[f"{name}.v"] + (1 - square_decay) * taken[name].square())
        direction = optimizer.weight_decay * weights[name] + first / (root + optimizer.eps)
        updates.append(moved[name] - weights[name])
        directions.append(-optimizer.learning_rate * direction)
        roots.append(mx.sqrt(second))
        expected_roots.append(root)
    error = max(largest_distance(updates, directions), largest_distance(roots, expected_roots))
    laws = _Laws(setting)
    return [
        *_check_ops(setting, gradient=True),
        _ratio_finding("timed loss against an uncompiled pass", loss, expected_loss, bound.value),
        _ratio_finding("timed gradient norm against an uncompiled pass", norm, expected_norm, bound.gradient),
        _gradient_finding(taken, {name: shrink * each for name, each in expected.items()}, setting),
        Finding(check="timed update is AdamW's", error=error, tolerance=_UPDATE_TOLERANCE),
        *laws.of_values(),
        *laws.of_gradients(),
    ]


def check_decoding(setting: "ModelSetting", model: Model, logits_B1V: mx.array) -> list[Finding]:
    """Checks a prefill, or decoding, given the timed call's logits of the last token, or the first call's of the next.

    Decoding is never compiled.
    """
    laws, length = _Laws(setting), setting.cell.length
    findings = [*_check_ops(setting, gradient=False), *laws.of_values(), laws.of_decoding()]
    if length > MAX_FULL_LENGTH:
        return findings
    is_decode = setting.cell.mode == "decode"
    expected = _in_float32(model)(setting.changed(length=length + is_decode).tokens())[:, -1:]
    timed = "timed logits (uncompiled, as all decoding)" if is_decode else "timed logits"
    check = f"{timed} against a forward pass without a cache"
    return [*findings, values_finding(check, logits_B1V, expected, _bound(setting.dtype))]


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

    return check_mixing(function, tokens_BL, another, _bound(mx.float32), may_LS=may_LS, direct_LS=direct_LS)


def check_continuation(model: Model, tokens_BL: mx.array) -> Finding:
    """Whether a prefix at once and then a few tokens one by one give what the whole sequence gives at once."""
    length = tokens_BL.shape[1]
    prefix, cache = max(1, length - _STEPS), model.make_cache()
    pieces = [model(tokens_BL[:, :prefix], cache=cache)]
    pieces += [model(tokens_BL[:, at : at + 1], cache=cache) for at in range(prefix, length)]
    check = "prefill and decoding equal the full forward pass"
    return values_finding(check, mx.concatenate(pieces, axis=1), model(tokens_BL), _bound(mx.float32))


def _bound(dtype: mx.Dtype) -> Tolerance:
    return tolerance(dtype).times(_DEPTH_FACTOR)


def _check_ops(setting: "ModelSetting", *, gradient: bool) -> list[Finding]:
    return [
        dataclasses.replace(finding, check=f"{op.variant.name}: {finding.check}")
        for op in setting.op_settings()
        for finding in check_op(op, gradient=gradient)
    ]


def _uncompiled(setting: "ModelSetting", model: Model) -> tuple[mx.array, dict[str, mx.array]]:
    """Mean nats and gradients by name, of a copy of the model on the setting's own batch; evaluated."""
    copy = build_model(model.config)
    copy.update(model.parameters())
    copy.train(model.training)
    found, gradients = loss_and_gradients(copy, setting.batch(), setting.dtype)
    mx.eval(found, gradients)
    return found, named_arrays(gradients)


def _ratio_finding(check: str, timed: mx.array, expected: mx.array, bound: float) -> Finding:
    error = abs(scalar(timed) / max(abs(scalar(expected)), _TINY) - 1)
    return Finding(check=check, error=error, tolerance=bound)


def _gradient_finding(
    timed: Mapping[str, mx.array], expected: Mapping[str, mx.array], setting: "ModelSetting"
) -> Finding:
    check, bound = "timed gradients against an uncompiled pass", _bound(setting.dtype)
    if expected.keys() != timed.keys():
        return Finding(check=check, error=float("inf"), tolerance=bound.gradient)
    return gradients_finding(check, [timed[name] for name in expected], list(expected.values()), bound)


def _in_float32(model: Model) -> Model:
    """An uncompiled copy, whose weights are those of the model as it rounded them."""
    copy = build_model(model.config)
    copy.update(tree_map(lambda array: array.astype(mx.float32), model.parameters()))
    copy.eval()
    return copy


class _Laws:
    """What holds of any model, asked of the setting's own in float32 with weights of order 1, so that all matter."""

    def __init__(self, setting: "ModelSetting") -> None:
        self._setting = setting.changed(dtype="float32", batch_size=2, length=min(MAX_LENGTH, setting.cell.length))
        self._bound = _bound(mx.float32)
        self._model = self._setting.model()
        self._model.eval()
        key = mx.random.key(setting.cell.seed)
        weights = named_arrays(self._model.parameters())
        for index, (name, array) in enumerate(weights.items()):
            if array.ndim == 2:
                noise = mx.random.normal(array.shape, key=mx.random.split(key, num=index + 1)[index])
                weights[name] = noise * array.shape[-1] ** -0.5
        self._update(self._model, weights)
        mx.eval(self._model.parameters())
        self._other = self._with_other_implementations()

    def of_values(self) -> list[Finding]:
        """Causality, mixing, rows, and the same model with another implementation."""
        tokens_BL = self._setting.tokens()
        findings = check_tokens(self._model, tokens_BL)
        if self._other is not None:
            check = "logits equal those of other implementations under the same weights"
            findings.append(values_finding(check, self._model(tokens_BL), self._other(tokens_BL), self._bound))
        return findings

    def of_gradients(self) -> list[Finding]:
        """Every parameter that has an effect gets a gradient, and other implementations give the same."""
        gradients, weights = self._gradients_of(self._model), named_arrays(self._model.parameters())
        before = self._loss(self._model, weights)
        missing = []
        for name, gradient in gradients.items():
            if are_finite(gradient) and gradient.any().item():
                continue
            # Random, since a layer norm cancels what moves all weights of an output alike.
            noise = mx.random.normal(gradient.shape, key=mx.random.key(self._setting.cell.seed))
            change = scalar(mx.abs(self._loss(self._model, {**weights, name: weights[name] + noise}) - before))
            # Some have no effect: a pooler outside the loss, a bias of keys that the softmax cancels.
            if not change <= self._bound.value:
                missing.append(name)
        self._update(self._model, weights)
        text = "every parameter that matters gets a finite gradient" + (
            f", not {', '.join(missing)}" if missing else ""
        )
        findings = [Finding(check=text, error=float(len(missing)), tolerance=0.0)]
        if self._other is not None:
            check = "gradients equal those of other implementations under the same weights"
            theirs = self._gradients_of(self._other)
            pairs = [gradients[name] for name in gradients], [theirs[name] for name in gradients]
            findings.append(gradients_finding(check, *pairs, self._bound))
        return findings

    def of_decoding(self) -> Finding:
        """A prefix at once and then token by token, against the whole sequence at once."""
        return check_continuation(
            self._model, self._setting.changed(length=self._setting.cell.length + _STEPS).tokens()
        )

    def _loss(self, model: Model, weights: Mapping[str, mx.array]) -> mx.array:
        self._update(model, weights)
        return mean_nats(model, self._setting.batch())

    def _gradients_of(self, model: Model) -> dict[str, mx.array]:
        return named_arrays(loss_and_gradients(model, self._setting.batch())[1])

    @staticmethod
    def _update(model: Model, weights: Mapping[str, mx.array]) -> None:
        model.update(tree_unflatten(list(weights.items())))

    def _with_other_implementations(self) -> Model | None:
        config = self._setting.config
        layers = [config.attention.layer(index) for index in range(config.num_layers)]
        found = {op.variant.name: other_implementation(op) for op in self._setting.op_settings()}
        others = [found[layer.name] or layer for layer in layers]
        if others == layers:
            return None
        pattern = LayerPattern(name=config.attention.name, layer_pattern=tuple(others))
        other = build_model(dataclasses.replace(config, attention=pattern))
        other.update(self._model.parameters())
        other.eval()
        return other
