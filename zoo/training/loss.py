"""The losses: summed nats in float32, to the text's tokens, the class of a text or another model's distribution.

    nats_i = log sum_v exp(x_iv) - x_{i, target_i}
    nats_i = T² sum_v p_iv (log p_iv - log q_iv)      p = softmax(o_i / T), q = softmax(x_i / T)

The second is the KL divergence from an original o, at a temperature T whose square keeps the gradient's size (Hinton
et al., https://arxiv.org/abs/1503.02531).

On GPUs `mx.fast.cross_entropy` fuses it. On CPUs a compiled kernel (the folder `native/`) reads the logits once forward
and once backward, and writes the gradient softmax(x) - onehot(target) over them where nothing else needs them. Without
the kernel one exponential per logit is nearly the whole cost, so forward and backward share it: the forward pass keeps
softmax(x), from which the gradient follows.

The logits of a long batch are its largest array by far; `zoo.training.chunks` never has them all at once.

Letters: B batch, L query length, D hidden, V vocabulary, P predicted positions.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from zoo.ops.exponential import normalised
from zoo.ops.masks import MaskSpec
from zoo.runtime.native import native_kernels_if_any
from zoo.training.chunks import (
    Nats,
    after,
    chunks_of_projection,
    in_chunks,
    is_projection_trained,
    of_the_head,
    plain_projection,
    rows_at_one_time,
    slices,
)

Arrays = dict[str, mx.array]


def token_nats(logits_PV: mx.array, targets_P: mx.array) -> mx.array:
    """Negative log-likelihood of each target.

    Args:
        logits_PV: Unnormalised scores, any floating dtype; computed in float32.
        targets_P: Token ids in [0, V), int32.

    Returns:
        float32 [P], in nats.
    """
    if mx.default_device().type != mx.cpu:
        return mx.fast.cross_entropy(logits_PV, targets_P)
    logits_PV, kernels = logits_PV.astype(mx.float32), native_kernels_if_any()
    if kernels is None:
        return _nats_and_probabilities(logits_PV, targets_P)[0]
    nats_P: mx.array = kernels.cross_entropy(logits_PV, targets_P)
    return nats_P


def divergence_nats(logits_PV: mx.array, original_PV: mx.array, *, temperature: float) -> mx.array:
    """KL divergence of each position from an original's distribution, times the temperature's square.

    Args:
        logits_PV: Unnormalised scores, any floating dtype; computed in float32.
        original_PV: The original's; no gradient reaches them.
        temperature: Divides both, above 0.

    Returns:
        float32 [P], in nats.
    """
    scaled = (each.astype(mx.float32) / temperature for each in (logits_PV, original_PV))
    nats_P: mx.array = _divergence_and_gradient(*scaled)[0]
    return nats_P * temperature**2


def summed_nats(model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None = None) -> mx.array:
    """Weighted sum of the nats of a batch.

    Args:
        model: Language model or encoder of `zoo.models`.
        batch: What `zoo.training.batches.to_arrays` makes.
        causal: Whether the model reads left to right.
        rows: Positions whose logits exist at one time; None for all, but for what `rows_at_one_time` limits.

    Returns:
        float32 scalar, in nats.
    """

    def nats(x_PD: mx.array, targets_P: mx.array) -> mx.array:
        return token_nats(model.scores(x_PD), targets_P)

    x_PD, targets_P = hidden_at_predicted(model, batch, causal=causal), batch["targets_P"]
    weight_VD = plain_projection(model)
    if weight_VD is not None:
        rows = rows or rows_at_one_time(len(targets_P), len(weight_VD))
        if rows < len(targets_P):
            function = chunks_of_projection(rows, trained=is_projection_trained(model))
            total: mx.array = function(weight_VD, x_PD, targets_P, batch["weights_P"])[0]
            return total
    return _weighted_sum(model, nats, x_PD, targets_P, batch, rows)


def summed_divergence(
    model: nn.Module,
    original: nn.Module,
    batch: Arrays,
    *,
    causal: bool,
    temperature: float = 1.0,
    rows: int | None = None,
) -> mx.array:
    """Weighted sum of the KL divergences of a batch from another model of the same tokens.

    Args:
        model: Language model or encoder of `zoo.models`.
        original: The other; no gradient reaches it.
        batch: As for `summed_nats`.
        causal: Whether the models read left to right.
        temperature: As for `divergence_nats`.
        rows: Positions whose logits exist at one time, those of both models; None for all.

    Returns:
        float32 scalar, in nats.
    """

    def nats(x_PD: mx.array, original_PD: mx.array) -> mx.array:
        return divergence_nats(model.logits(x_PD), original.logits(original_PD), temperature=temperature)

    original_PD = mx.stop_gradient(hidden_at_predicted(original, batch, causal=causal))
    return _weighted_sum(model, nats, hidden_at_predicted(model, batch, causal=causal), original_PD, batch, rows)


def judged(model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None = None) -> tuple[mx.array, mx.array]:
    """Weighted nats, and weights of the targets guessed right, without a gradient; arguments as in `summed_nats`."""
    x_PD, targets_P, weights_P = (
        hidden_at_predicted(model, batch, causal=causal),
        batch["targets_P"],
        batch["weights_P"],
    )
    nats = right = mx.zeros(())
    rows = rows or rows_at_one_time(len(targets_P), model.config.vocab_size)
    for part in slices(len(targets_P), rows):
        chunk_PD = after(x_PD[part], [nats, right])
        logits_PV = model.scores(chunk_PD)
        nats = nats + (token_nats(logits_PV, targets_P[part]) * weights_P[part]).sum()
        right = right + ((mx.argmax(logits_PV, axis=-1) == targets_P[part]) * weights_P[part]).sum()
    return nats, right


def predicted_scores(model: nn.Module, batch: Arrays, *, causal: bool) -> mx.array:
    """What training judges: logits [P, V] of the predicted positions; arguments as in `summed_nats`."""
    return model.scores(hidden_at_predicted(model, batch, causal=causal))


def hidden_at_predicted(model: nn.Module, batch: Arrays, *, causal: bool) -> mx.array:
    """Last hidden states [P, D] of the predicted positions; arguments as in `summed_nats`."""
    types = {"token_types_BL": batch["token_types_BL"]} if "token_types_BL" in batch else {}
    x_BLD = model.hidden(batch["inputs_BL"], mask=mask_of(batch, causal=causal), cache=None, **types)
    x_PD = x_BLD.reshape(-1, x_BLD.shape[-1])
    if "picks_P" in batch:
        x_PD = x_PD[batch["picks_P"]]
    return x_PD


def mask_of(batch: Arrays, *, causal: bool) -> MaskSpec:
    """What the tokens of a batch may attend to."""
    # What is read left to right never sees the padding on its right, and needs no description of it.
    lengths_B = None if causal else batch.get("lengths_B")
    return MaskSpec(causal=causal, lengths_B=lengths_B, segments_BL=batch.get("segments_BL"))


def _weighted_sum(
    model: nn.Module, nats: Nats, x_PD: mx.array, targets: mx.array, batch: Arrays, rows: int | None
) -> mx.array:
    weights_P = batch["weights_P"]
    if rows is not None and rows < len(weights_P):
        total: mx.array = in_chunks(model, nats, rows)(of_the_head(model), x_PD, targets, weights_P)[0]
        return total
    return (nats(x_PD, targets) * weights_P).sum()


def _forward(logits_PV: mx.array, targets_P: mx.array) -> tuple[mx.array, mx.array]:
    log_sums_P1, probabilities_PV = normalised(logits_PV)
    target_P1 = mx.take_along_axis(logits_PV, targets_P[:, None], axis=-1)
    return (log_sums_P1 - target_P1).squeeze(-1), probabilities_PV


def _backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    _, targets_P = primals
    scale_P1 = cotangents[0][:, None]
    gradient_PV = outputs[1] * scale_P1
    at_target_P1 = mx.take_along_axis(gradient_PV, targets_P[:, None], axis=-1) - scale_P1
    return mx.put_along_axis(gradient_PV, targets_P[:, None], at_target_P1, axis=-1), mx.zeros_like(targets_P)


# Typed as Any: MLX's stubs know the decorator as an object only.
_nats_and_probabilities: Any = mx.custom_function(_forward)
_nats_and_probabilities.vjp(_backward)


def _diverge(logits_PV: mx.array, original_PV: mx.array) -> tuple[mx.array, mx.array]:
    log_sums_P1, q_PV = normalised(logits_PV)
    original_log_sums_P1, p_PV = normalised(original_PV)
    ratios_PV = (original_PV - original_log_sums_P1) - (logits_PV - log_sums_P1)
    return (p_PV * ratios_PV).sum(axis=-1), q_PV - p_PV


def _diverge_backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    return outputs[1] * cotangents[0][:, None], mx.zeros_like(primals[1])


_divergence_and_gradient: Any = mx.custom_function(_diverge)
_divergence_and_gradient.vjp(_diverge_backward)
