"""What exchanging its attention did to a model, on held-out text: how far its predictions are from the original's.

    KL(p ‖ q) = sum_v p_v (log p_v - log q_v)        p of the original, q of the other, per predicted token

Letters: B batch, L length, P predicted positions, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from zoo.data.loader import Batch
from zoo.training.batches import to_arrays
from zoo.training.evaluation import scalar
from zoo.training.loss import divergence_nats, hidden_at_predicted, token_nats

# Positions whose logits exist at one time, of both models.
_ROWS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """The difference between two models of one vocabulary.

    Attributes:
        kl_nats_per_token: Mean Kullback-Leibler divergence from the original's predictions.
        top1_agreement: Share of the tokens where both have the same first guess.
        largest_logit_difference: Over all logits.
        bits_per_byte_before: Of the original; None if the tokens stand for no bytes.
        bits_per_byte_after: Of the other.
        tokens: Predicted tokens that were compared, by weight.
    """

    kl_nats_per_token: float
    top1_agreement: float
    largest_logit_difference: float
    bits_per_byte_before: float | None
    bits_per_byte_after: float | None
    tokens: float

    def as_mapping(self) -> dict[str, Any]:
        """Plain, JSON-ready mapping."""
        return dataclasses.asdict(self)

    def lines(self) -> Iterator[str]:
        """The same in words, a line for each fact."""
        yield (
            f"against the original, on {self.tokens:,.0f} tokens: KL {self.kl_nats_per_token:.4g} nats per token,"
            f" equal first guesses {self.top1_agreement:.1%},"
            f" largest difference of a logit {self.largest_logit_difference:.3g}"
        )
        if self.bits_per_byte_before is not None:
            yield f"bits per byte: {self.bits_per_byte_before:.4f} before, {self.bits_per_byte_after:.4f} after"


def measure_damage(
    model: nn.Module, original: nn.Module, batches: Iterable[Batch], token_byte_lengths_V: np.ndarray | None
) -> Damage:
    """Compares a model with its original, both in evaluation mode.

    Args:
        model: With another attention, quantized, or changed otherwise.
        original: What it was.
        batches: Of held-out text.
        token_byte_lengths_V: UTF-8 bytes of each token of the vocabulary, int32; None if tokens are no text.
    """
    causal: bool = original.config.causal
    sums = np.zeros(4)
    largest = weight = num_bytes = 0.0
    for batch in batches:
        (arrays,) = to_arrays(batch)
        hidden = [hidden_at_predicted(each, arrays, causal=causal) for each in (original, model)]
        mx.eval(hidden)
        for start in range(0, len(arrays["targets_P"]), _ROWS):
            part = slice(start, start + _ROWS)
            before_PV, after_PV = original.scores(hidden[0][part]), model.scores(hidden[1][part])
            sums_4, top = _compared(before_PV, after_PV, arrays["targets_P"][part], arrays["weights_P"][part])
            mx.eval(sums_4, top)
            sums += np.array(sums_4, dtype=np.float64)
            largest = max(largest, scalar(top))
        weight += float(batch.weights_BL.sum(dtype=np.float64))
        if token_byte_lengths_V is not None:
            num_bytes += float((token_byte_lengths_V[batch.targets_BL] * batch.weights_BL).sum(dtype=np.float64))
    kl, agreed, before, after = sums.tolist()
    bits = [nats / math.log(2) / num_bytes if num_bytes else None for nats in (before, after)]
    return Damage(
        kl_nats_per_token=kl / weight if weight else math.nan,
        top1_agreement=agreed / weight if weight else math.nan,
        largest_logit_difference=largest,
        bits_per_byte_before=bits[0],
        bits_per_byte_after=bits[1],
        tokens=weight,
    )


def _compared(
    before_PV: mx.array, after_PV: mx.array, targets_P: mx.array, weights_P: mx.array
) -> tuple[mx.array, mx.array]:
    """Sums of divergence, agreement and both models' nats, float32 [4], and the largest difference of a logit."""
    before_PV, after_PV = before_PV.astype(mx.float32), after_PV.astype(mx.float32)
    kl_P = divergence_nats(after_PV, before_PV, temperature=1.0)
    agreed_P = mx.argmax(before_PV, axis=-1) == mx.argmax(after_PV, axis=-1)
    nats = [token_nats(each, targets_P) for each in (before_PV, after_PV)]
    sums = mx.stack([(each * weights_P).sum() for each in (kl_P, agreed_P, *nats)])
    return sums, (mx.abs(before_PV - after_PV).max(axis=-1) * (weights_P > 0)).max()
