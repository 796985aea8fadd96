"""The layer that most mechanisms share: q/k/v/o projections, positions and head bookkeeping around a mixing op.

Letters: B batch, L query length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import abc

import mlx.core as mx
import mlx.nn as nn

from zoo.attention.interface import Attention, Cache, Capabilities, LayerShape
from zoo.config import UserError
from zoo.layers.positions import alibi_slopes, rotary
from zoo.ops.masks import MaskSpec


class ProjectedAttention(Attention):
    """Projects x to grouped heads, applies positions, lets a subclass mix, and projects back."""

    def __init__(self, capabilities: Capabilities, shape: LayerShape, num_kv_heads: int) -> None:
        """Makes the projections.

        Args:
            capabilities: What the mechanism can do.
            shape: The model around the layer.
            num_kv_heads: K.

        Raises:
            UserError: If the mechanism does not support what the model needs.
        """
        super().__init__()
        require_capable(capabilities, shape, num_kv_heads)
        self.capabilities = capabilities
        self.shape = shape
        self.num_kv_heads = num_kv_heads
        inner = shape.num_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, inner, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, num_kv_heads * shape.head_dim, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden_size, num_kv_heads * shape.head_dim, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(inner, shape.hidden_size, bias=shape.output_bias)
        if shape.qk_norm:
            self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.norm_eps)
            self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.norm_eps)
        if shape.positions == "rotary":
            turn = shape.rotary
            self.rope = rotary(
                shape.head_dim,
                turn.theta,
                traditional=turn.traditional,
                scaling=turn.scaling,
                max_seq_len=shape.max_seq_len,
            )
        self._slopes_N = alibi_slopes(shape.num_heads) if shape.positions == "alibi" else None

    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        require_mask(self.capabilities, mask, cache)
        q_BNLH, k_BKLH, v_BKLH = self._projected(x_BLD, mask)
        return self.output(x_BLD, self.mix(q_BNLH, k_BKLH, v_BKLH, mask=mask, cache=cache))

    def op_inputs(self, x_BLD: mx.array, *, mask: MaskSpec) -> tuple[mx.array, ...] | None:
        """Queries, keys, values, and the layer's own learned arrays in the order in which they were set."""
        return (*self._projected(x_BLD, mask), *self.own_arrays())

    def own_arrays(self) -> tuple[mx.array, ...]:
        """What the layer learns besides its projections."""
        own = [value for name, value in self.items() if isinstance(value, mx.array) and not name.startswith("_")]
        return tuple(own)

    def output(self, x_BLD: mx.array, y_BNLH: mx.array) -> mx.array:
        B, N, L, H = y_BNLH.shape
        y_BLD: mx.array = self.o_proj(y_BNLH.transpose(0, 2, 1, 3).reshape(B, L, N * H))
        return y_BLD

    def _projected(self, x_BLD: mx.array, mask: MaskSpec) -> tuple[mx.array, mx.array, mx.array]:
        """q_BNLH, k_BKLH and v_BKLH, normalised and turned to their positions as the model asks."""
        B, L, _ = x_BLD.shape
        shape = self.shape
        q_BNLH = self.q_proj(x_BLD).reshape(B, L, shape.num_heads, shape.head_dim)
        k_BKLH = self.k_proj(x_BLD).reshape(B, L, self.num_kv_heads, shape.head_dim)
        v_BKLH = self.v_proj(x_BLD).reshape(B, L, self.num_kv_heads, shape.head_dim).transpose(0, 2, 1, 3)
        if shape.qk_norm:
            q_BNLH, k_BKLH = self.q_norm(q_BNLH), self.k_norm(k_BKLH)
        q_BNLH, k_BKLH = q_BNLH.transpose(0, 2, 1, 3), k_BKLH.transpose(0, 2, 1, 3)
        if shape.positions == "rotary":
            q_BNLH, k_BKLH = self.rope(q_BNLH, offset=mask.offset), self.rope(k_BKLH, offset=mask.offset)
        return q_BNLH, k_BKLH, v_BKLH

    @abc.abstractmethod
    def mix(
        self, q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, *, mask: MaskSpec, cache: Cache | None
    ) -> mx.array:
        """Mixes tokens: the mechanism. Returns [B, N, L, H]."""

    @abc.abstractmethod
    def mixing_flops(self, *, query_length: int, key_length: int) -> int:
        """Useful operations of `mix` for one row."""

    def mixing_numbers(self, *, batch_size: int, length: int) -> int:
        """About how many numbers a training step keeps of `mix`; a subclass with no matrix of scores says so."""
        return batch_size * self.shape.num_heads * length * length

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        # Before and after they are turned, scaled or laid out anew: measured.
        projected = (4 * self.shape.num_heads + 2 * self.num_kv_heads) * self.shape.head_dim
        return batch_size * length * projected + self.mixing_numbers(batch_size=batch_size, length=length)

    def flops(self, *, query_length: int, key_length: int) -> int:
        heads = 2 * self.shape.num_heads + 2 * self.num_kv_heads
        projections = 2 * query_length * self.shape.hidden_size * heads * self.shape.head_dim
        return projections + self.mixing_flops(query_length=query_length, key_length=key_length)


def require_capable(capabilities: Capabilities, shape: LayerShape, num_kv_heads: int) -> None:
    """Refuses a model that needs what the mechanism cannot do.

    Raises:
        UserError: With the reason.
    """
    if shape.causal and not capabilities.causal:
        reason = capabilities.refusal or f"{capabilities.exact_class} is not causal"
        raise UserError(f"attention: a language model must not see the future; {reason}")
    if not shape.causal and not capabilities.bidirectional:
        raise UserError(
            f"attention: {capabilities.exact_class} must be used in a causal model;"
            " this implementation cannot look ahead"
        )
    if shape.positions == "alibi" and not capabilities.alibi:
        raise UserError(f"model.positions: {capabilities.exact_class} has no scores to bias; got 'alibi'")
    if num_kv_heads != shape.num_heads and not capabilities.grouped_heads:
        raise UserError(f"attention: {capabilities.exact_class} must have as many key/value heads as query heads")


def require_mask(capabilities: Capabilities, mask: MaskSpec, cache: Cache | None) -> None:
    """Refuses a mask that the mechanism does not understand.

    Raises:
        UserError: With the reason.
    """
    if cache is not None:
        mask.require_no_padding_with_cache()
        if not capabilities.decode:
            raise UserError(f"attention: {capabilities.exact_class} cannot decode from a cache")
    if mask.causal and not capabilities.causal:
        raise UserError(f"mask: {capabilities.refusal or capabilities.exact_class + ' is not causal'}")
    if not mask.causal and not capabilities.bidirectional:
        raise UserError(f"mask: {capabilities.exact_class} must be causal")
    if mask.lengths_B is not None and not capabilities.padding:
        raise UserError(f"mask: {capabilities.exact_class} does not support right padding")
    if mask.segments_BL is not None and not capabilities.segments:
        raise UserError(
            f"mask: {capabilities.exact_class} does not support packed documents; set data.mask_documents=false"
        )
