"""Healing a model whose attention was exchanged, by the original it came from, in two stages.

    attention_loss  mean over exchanged layers l and tokens of |f_l(x_l) - g_l(x_l)|² / D
    kl_loss         mean over predicted tokens of T² KL(softmax(original / T) ‖ softmax(model / T))

f_l is the new attention layer, g_l the original's, x_l what the latter gets: the original runs once, and all layers
learn side by side. These are the stages of LoLCATs (Zhang et al., https://arxiv.org/abs/2410.10254), whose second takes
the loss on the text. There the first trains feature maps alone. Here it trains all that is trained of the attention
layer, for most mechanisms learn nothing of their own.

Letters: B batch, L length, D hidden.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from zoo.config import require_within
from zoo.data.loader import Batch
from zoo.models import copied
from zoo.training.batches import num_tokens
from zoo.training.config import MOST_COUNTED
from zoo.training.loss import Arrays, mask_of, summed_divergence
from zoo.training.objective import Details, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """What is learnt from the original, and when.

    Attributes:
        attention_steps: The first of the run's steps, in which each exchanged layer learns the original's output.
        attention_learning_rate: Highest learning rate of these; None for the optimizer's own.
        loss: Of the other steps: on the text, or the divergence from the original's distribution.
        temperature: Of both distributions in that divergence.
    """

    attention_steps: int = 0
    attention_learning_rate: float | None = None
    loss: Literal["next_token", "kl"] = "next_token"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_within(self, 0, MOST_COUNTED, "attention_steps")
        require_within(self, 1e-30, 1e30, "attention_learning_rate")
        require_within(self, 1e-3, 1e3, "temperature")

    @property
    def needs_original(self) -> bool:
        """Whether any step reads the original."""
        return self.attention_steps > 0 or self.loss == "kl"


class AttentionTransfer(Objective):
    """Each exchanged layer learns what the original's gives of the original's hidden states."""

    name = "attention_loss"
    reads_original = True

    def __init__(self, original: nn.Module, layers: Sequence[int]) -> None:
        """Takes the original, as `original_of` makes it, and the numbers of the exchanged layers, from 0."""
        self._original = original
        self._layers = sorted(layers)

    def __call__(self, model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None) -> tuple[mx.array, Details]:
        mask, details = mask_of(batch, causal=causal), {}
        types = {"token_types_BL": batch["token_types_BL"]} if "token_types_BL" in batch else {}
        x_BLD = self._original.embedded(batch["inputs_BL"], mask, **types)
        # What comes after the last exchanged layer is of no concern.
        for index, block in enumerate(self._original.layers[: self._layers[-1] + 1]):
            input_BLD = block.attention_input(x_BLD)
            wanted_BLD = block.self_attn(input_BLD, mask=mask)
            if index in self._layers:
                found_BLD = model.layers[index].self_attn(input_BLD, mask=mask)
                details[f"{self.name}/layer_{index}"] = _squared_error(found_BLD, wanted_BLD, batch)
            x_BLD = block.after_attention(x_BLD, wanted_BLD)
        return mx.stack(list(details.values())).mean(), details

    def learner(self, model: nn.Module) -> nn.Module:
        return _AttentionLayers([model.layers[index].self_attn for index in self._layers])

    def weight(self, batch: Batch) -> float:
        return num_tokens(batch)

    @property
    def state(self) -> list[Any]:
        return [self._original.state]


class Divergence(Objective):
    """The model learns the original's distribution of the next token; of the masked ones in an encoder."""

    name = "kl_loss"
    reads_original = True

    def __init__(self, original: nn.Module, *, temperature: float) -> None:
        """Takes the original, as `original_of` makes it."""
        self._original = original
        self._temperature = temperature

    def __call__(self, model: nn.Module, batch: Arrays, *, causal: bool, rows: int | None) -> tuple[mx.array, Details]:
        nats = summed_divergence(model, self._original, batch, causal=causal, temperature=self._temperature, rows=rows)
        return nats, {}

    @property
    def state(self) -> list[Any]:
        return [self._original.state]


class _AttentionLayers(nn.Module):
    """Layers of a model, as one module."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = layers


def original_of(model: nn.Module, *, dtype: mx.Dtype) -> nn.Module:
    """A model that stays what a model is now, whatever becomes of that one: same arrays in modules of its own.

    Args:
        model: Whole.
        dtype: Of its weights from now on, where theirs is wider.

    Returns:
        The original, in evaluation mode and frozen.
    """
    original = copied(model)
    original.set_dtype(dtype, lambda own: mx.issubdtype(own, mx.floating) and own.size > dtype.size)
    return original.freeze().eval()


def _squared_error(found_BLD: mx.array, wanted_BLD: mx.array, batch: Arrays) -> mx.array:
    """Summed over tokens that are no padding, the mean over channels."""
    error_BLD = found_BLD.astype(mx.float32) - wanted_BLD.astype(mx.float32)
    error_BL = mx.square(error_BLD).mean(axis=-1)
    if "lengths_B" in batch:
        error_BL = mx.where(mx.arange(error_BL.shape[1]) < batch["lengths_B"][:, None], error_BL, 0)
    return error_BL.sum()
