"""The attention contract: what a model may know of an attention layer, what a layer knows of its model, and the mixer.

Letters: B batch, L query length, S key length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from zoo.config import UserError, require
from zoo.layers.positions import alibi_slopes
from zoo.ops.masks import MaskSpec

Cache = Any  # mlx-lm's cache protocol: state, nbytes, offset, is_trimmable(), trim(n), empty()
PositionKind = Literal["learned", "rotary", "alibi", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a mechanism can do; declared by it, and tested both ways: what it claims works, the rest is refused.

    Attributes:
        causal: Can hide the future, so language models may use it.
        bidirectional: Can attend both ways, so encoders may use it.
        decode: Can generate token by token from a cache.
        exact_class: Name of the function computed. Mechanisms of one class give equal outputs from equal weights.
        trimmable: Its cache can forget the last tokens.
        bounded_cache: Its cache stops growing with the length.
        padding: Understands right padding.
        segments: Understands packed documents.
        grouped_heads: Can share key/value heads among query heads.
        alibi: Can add ALiBi's bias to its scores.
        refusal: Why models must not use it at all, or an empty text. Refused mechanisms exist for comparison only.
    """

    causal: bool
    bidirectional: bool
    decode: bool
    exact_class: str
    trimmable: bool
    bounded_cache: bool = False
    padding: bool = True
    segments: bool = True
    grouped_heads: bool = True
    alibi: bool = True
    refusal: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """Rotary positions: base frequency and the scaling that some checkpoints carry (other libraries' `rope_scaling`).

    Attributes:
        theta: Base of the frequencies.
        traditional: Rotate adjacent pairs instead of the two halves of a head.
        scaling: One of `zoo.layers.positions.ROPE_SCALINGS`, or None.
    """

    theta: float = 10_000.0
    traditional: bool = False
    scaling: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        require(self.theta > 0, "theta", "be positive", self.theta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What the model tells each of its attention layers about itself.

    Attributes:
        hidden_size: D.
        num_heads: N.
        num_kv_heads: K, the model's own grouping; to its layers and mixers a variant gives its own.
        head_dim: H.
        causal: Whether the model is a language model (True) or an encoder (False).
        max_seq_len: Longest sequence the model is meant for.
        positions: Where token order comes from; only "rotary" and "alibi" concern the attention layer.
        rotary: Parameters of rotary positions.
        qkv_bias: Whether q_proj, k_proj and v_proj have biases.
        output_bias: Whether o_proj has a bias.
        qk_norm: Whether q and k are RMS-normalised per head.
        norm_eps: Epsilon of that normalisation.
    """

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    causal: bool
    max_seq_len: int
    positions: PositionKind
    rotary: RotaryConfig = dataclasses.field(default_factory=RotaryConfig)
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-5

    @property
    def slopes(self) -> mx.array | None:
        """ALiBi's, float32 [N], or None without ALiBi."""
        return alibi_slopes(self.num_heads) if self.positions == "alibi" else None


class Attention(nn.Module, abc.ABC):
    """One attention layer: x_BLD -> y_BLD. Models see this interface and never a mechanism."""

    capabilities: Capabilities

    @abc.abstractmethod
    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        """Mixes tokens.

        Args:
            x_BLD: Hidden states.
            mask: What may be attended to; `mask.offset` counts the tokens already in the cache.
            cache: What `make_cache` returned, updated in place; None to process a whole sequence at once.

        Returns:
            [B, L, D] in the dtype of x.

        Raises:
            UserError: If the mask or the cache asks for something outside `capabilities`.
        """

    def op_inputs(self, x_BLD: mx.array, *, mask: MaskSpec) -> tuple[mx.array, ...] | None:
        """What the mechanism's op takes before its last argument, made of x by the layer's own projections.

        With `output` it says what is the layer and what the mechanism: a call without a cache equals
        `output(x_BLD, op(*op_inputs(x_BLD, mask=mask), spec))`, and the tests hold it to that with the reference in
        place of the op. None, which those tests refuse, if the layer does not tell.
        """
        return None

    def output(self, x_BLD: mx.array, y_BNLH: mx.array) -> mx.array:
        """What the layer makes of the op's result, [B, L, D]; x_BLD is what it was called with.

        Raises:
            NotImplementedError: If the layer does not tell.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def make_cache(self) -> Cache:
        """An empty cache for decoding.

        Raises:
            UserError: If the layer cannot decode.
        """

    @abc.abstractmethod
    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        """Bytes that the cache holds after `length` tokens were decoded one by one; equals the real cache."""

    @abc.abstractmethod
    def flops(self, *, query_length: int, key_length: int) -> int:
        """Useful floating-point operations of one row, a multiply-add counting as 2.

        Counts the projections and the scores that the pattern allows; not masked scores, softmax or norms.
        """

    def mixing_flops(self, *, query_length: int, key_length: int) -> int | None:
        """The part of `flops` that is no projection; None if the layer does not tell."""
        return None

    def kept_numbers(self, *, batch_size: int, length: int) -> int | None:
        """About how many numbers a training step keeps of a call on whole rows until it takes their gradient.

        Prices a training before it begins. None, if the layer does not know, is taken for a matrix of scores per head.
        """
        return None


class Mixer(abc.ABC):
    """What is exchanged when attention is exchanged: q, k and v in, y out, with its cache and its accounts.

    It holds no parameter. What it learns belongs to the layer around it, under the names that `learned` gives.
    """

    def __init__(self, capabilities: Capabilities, shape: LayerShape) -> None:
        """Notes what every mixer has.

        Args:
            capabilities: What it can do.
            shape: The model around it; its `num_kv_heads` are those that the mixer gets.
        """
        self.capabilities = capabilities
        self.shape = shape

    @abc.abstractmethod
    def __call__(self, *inputs: mx.array, mask: MaskSpec, cache: Cache | None, training: bool) -> mx.array:
        """Mixes tokens.

        Args:
            inputs: q_BNLH, k_BKLH and v_BKLH of the same tokens, at their positions; then the arrays that `learned`
                names, in its order.
            mask: What may be attended to, within `capabilities`.
            cache: What `make_cache` returned, updated in place; None to process a whole sequence at once.
            training: Whether the layer is in training mode.

        Returns:
            [B, N, L, H].
        """

    @abc.abstractmethod
    def flops(self, *, query_length: int, key_length: int) -> int:
        """Useful floating-point operations of one row, counted as `Attention.flops` counts."""

    def learned(self) -> Mapping[str, mx.array]:
        """Initial values by name of what it learns, always the same."""
        return {}

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        """About how many numbers a training step keeps of a call; a mixer without a matrix of scores says so."""
        return batch_size * self.shape.num_heads * length * length

    def make_cache(self) -> Cache:
        """An empty cache, asked for in causal models only.

        Raises:
            UserError: If it cannot decode.
        """
        raise UserError(f"attention: {self.capabilities.exact_class} cannot decode from a cache")

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        """Bytes of that cache, as `Attention.cache_bytes` counts."""
        return 0
