"""The loss of token prediction: summed nats in float32.

    nats_i = log sum_v exp(x_iv) - x_{i, target_i}

On GPUs `mx.fast.cross_entropy` fuses it. On CPUs one exponential per logit is nearly the whole cost, so forward
and backward share it there: the forward pass keeps softmax(x), from which the gradient softmax(x) - onehot(target)
follows without a second exponential.

Letters: B batch, L query length, D hidden, V vocabulary, P predicted positions.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from zoo.ops.exponential import exp
from zoo.ops.masks import MaskSpec

Arrays = dict[str, mx.array]


def token_nats(logits_PV: mx.array, targets_P: mx.array) -> mx.array:
    """Negative log-likelihood of each target.

    Args:
        logits_PV: Unnormalised scores, any floating dtype; computed in float32.
        targets_P: Token ids in [0, V), int32.

    Returns:
        float32 [P], in nats.
    """
    if mx.default_device().type == mx.cpu:
        return _nats_and_probabilities(logits_PV.astype(mx.float32), targets_P)[0]
    return mx.fast.cross_entropy(logits_PV, targets_P)


def summed_nats(model: nn.Module, batch: Arrays, *, causal: bool) -> mx.array:
    """Weighted sum of the nats of a batch.

    Args:
        model: Language model or encoder of `zoo.models`.
        batch: What `zoo.training.batches.to_arrays` makes.
        causal: Whether the model reads left to right.

    Returns:
        float32 scalar, in nats.
    """
    nats_P = token_nats(predicted_logits(model, batch, causal=causal), batch["targets_P"])
    return (nats_P * batch["weights_P"]).sum()


def predicted_logits(model: nn.Module, batch: Arrays, *, causal: bool) -> mx.array:
    """Logits [P, V] of the predicted positions; arguments as in `summed_nats`."""
    # What is read left to right never sees the padding on its right, and needs no description of it.
    lengths_B = None if causal else batch.get("lengths_B")
    mask = MaskSpec(causal=causal, lengths_B=lengths_B, segments_BL=batch.get("segments_BL"))
    x_BLD = model.hidden(batch["inputs_BL"], mask=mask, cache=None)
    x_PD = x_BLD.reshape(-1, x_BLD.shape[-1])
    if "picks_P" in batch:
        x_PD = x_PD[batch["picks_P"]]
    return model.logits(x_PD)


def _forward(logits_PV: mx.array, targets_P: mx.array) -> tuple[mx.array, mx.array]:
    top_P1 = mx.max(logits_PV, axis=-1, keepdims=True)
    exps_PV = exp(logits_PV - top_P1)
    sums_P1 = exps_PV.sum(axis=-1, keepdims=True)
    target_P1 = mx.take_along_axis(logits_PV, targets_P[:, None], axis=-1)
    nats_P = (mx.log(sums_P1) + top_P1 - target_P1).squeeze(-1)
    return nats_P, exps_PV / sums_P1


def _backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    _, targets_P = primals
    scale_P1 = cotangents[0][:, None]
    gradient_PV = outputs[1] * scale_P1
    at_target_P1 = mx.take_along_axis(gradient_PV, targets_P[:, None], axis=-1) - scale_P1
    return mx.put_along_axis(gradient_PV, targets_P[:, None], at_target_P1, axis=-1), mx.zeros_like(targets_P)


# Typed as Any: MLX's stubs know the decorator as an object only.
_nats_and_probabilities: Any = mx.custom_function(_forward)
_nats_and_probabilities.vjp(_backward)
