"""The layer that most mechanisms share: q/k/v/o projections, norms and positions around one mixer.

Letters: B batch, L query length, D hidden, N query heads, K key/value heads, H head_dim.
"""

import mlx.core as mx
import mlx.nn as nn

from zoo.attention.interface import Attention, Cache, Capabilities, LayerShape, Mixer
from zoo.config import UserError
from zoo.layers.norms import RMSNorm
from zoo.layers.positions import rotary
from zoo.ops.masks import MaskSpec


class ProjectedAttention(Attention):
    """Projects x to grouped heads, applies positions, lets its mixer mix, and projects back.

    All modules in it belong to the model; what the mixer learns stands beside them, as arrays of the layer.
    """

    def __init__(self, mixer: Mixer) -> None:
        """Makes the projections, and what the mixer learns.

        Args:
            mixer: What mixes; its shape is the layer's.

        Raises:
            UserError: If the mixer learns something under a name that the layer itself needs.
        """
        super().__init__()
        shape = mixer.shape
        self.mixer = mixer
        self.capabilities = mixer.capabilities
        self.shape = shape
        inner, grouped = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, inner, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, grouped, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden_size, grouped, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(inner, shape.hidden_size, bias=shape.output_bias)
        if shape.qk_norm:
            self.q_norm = RMSNorm(shape.head_dim, eps=shape.norm_eps)
            self.k_norm = RMSNorm(shape.head_dim, eps=shape.norm_eps)
        if shape.positions == "rotary":
            turn = shape.rotary
            self.rope = rotary(
                shape.head_dim,
                turn.theta,
                traditional=turn.traditional,
                scaling=turn.scaling,
                max_seq_len=shape.max_seq_len,
            )
        learned = mixer.learned()
        self.learned_names = tuple(learned)
        for name, array in learned.items():
            if not name.isidentifier() or name.startswith("_") or name in dir(self) or name in self:
                raise UserError(f"attention: learned must give names that a layer can take; got {name!r}")
            setattr(self, name, array)

    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        require_mask(self.capabilities, mask, cache)
        y_BNLH = self.mixer(*self.op_inputs(x_BLD, mask=mask), mask=mask, cache=cache, training=self.training)
        return self.output(x_BLD, y_BNLH)

    def op_inputs(self, x_BLD: mx.array, *, mask: MaskSpec) -> tuple[mx.array, ...]:
        """Queries, keys and values, normalised and turned to their positions, and what the mixer learns."""
        B, L, _ = x_BLD.shape
        shape = self.shape
        q_BNLH = self.q_proj(x_BLD).reshape(B, L, shape.num_heads, shape.head_dim)
        k_BKLH = self.k_proj(x_BLD).reshape(B, L, shape.num_kv_heads, shape.head_dim)
        v_BKLH = self.v_proj(x_BLD).reshape(B, L, shape.num_kv_heads, shape.head_dim).transpose(0, 2, 1, 3)
        if shape.qk_norm:
            q_BNLH, k_BKLH = self.q_norm(q_BNLH), self.k_norm(k_BKLH)
        q_BNLH, k_BKLH = q_BNLH.transpose(0, 2, 1, 3), k_BKLH.transpose(0, 2, 1, 3)
        if shape.positions == "rotary":
            q_BNLH, k_BKLH = self.rope(q_BNLH, offset=mask.offset), self.rope(k_BKLH, offset=mask.offset)
        return q_BNLH, k_BKLH, v_BKLH, *(self[name] for name in self.learned_names)

    def output(self, x_BLD: mx.array, y_BNLH: mx.array) -> mx.array:
        B, N, L, H = y_BNLH.shape
        y_BLD: mx.array = self.o_proj(y_BNLH.transpose(0, 2, 1, 3).reshape(B, L, N * H))
        return y_BLD

    def make_cache(self) -> Cache:
        if not self.shape.causal:
            reason = self.capabilities.refusal or "this layer belongs to an encoder"
            raise UserError(f"attention: only causal models can decode; {reason}")
        return self.mixer.make_cache()

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        return self.mixer.cache_bytes(batch_size=batch_size, length=length, dtype=dtype) if self.shape.causal else 0

    def flops(self, *, query_length: int, key_length: int) -> int:
        heads = 2 * self.shape.num_heads + 2 * self.shape.num_kv_heads
        projections = 2 * query_length * self.shape.hidden_size * heads * self.shape.head_dim
        return projections + self.mixing_flops(query_length=query_length, key_length=key_length)

    def mixing_flops(self, *, query_length: int, key_length: int) -> int:
        return self.mixer.flops(query_length=query_length, key_length=key_length)

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        # Before and after they are turned, scaled or laid out anew: measured.
        projected = (4 * self.shape.num_heads + 2 * self.shape.num_kv_heads) * self.shape.head_dim
        return batch_size * length * projected + self.mixer.kept_numbers(batch_size=batch_size, length=length)


def require_capable(capabilities: Capabilities, shape: LayerShape) -> None:
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
    if shape.num_kv_heads != shape.num_heads and not capabilities.grouped_heads:
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
