"""Transformer blocks: attention and feed-forward layers on a residual stream, normalised before or after.

    pre-norm:  x = x + attention(norm(x));  x = x + mlp(norm(x))      GPT-2, Llama
    post-norm: x = norm(x + attention(x));  x = norm(x + mlp(x))      BERT

Xiong et al., "On Layer Normalization in the Transformer Architecture", https://arxiv.org/abs/2002.04745.

Letters: B batch, L length, D hidden.
"""

import mlx.core as mx
import mlx.nn as nn

from zoo.attention import Attention, Cache
from zoo.layers.dropout import dropout
from zoo.layers.feed_forward import FeedForward, GatedFeedForward
from zoo.ops.masks import MaskSpec


class PreNormBlock(nn.Module):
    """Normalises what enters each branch."""

    def __init__(
        self,
        self_attn: Attention,
        mlp: FeedForward | GatedFeedForward,
        *,
        norms: tuple[nn.Module, nn.Module],
        dropout_probability: float,
    ) -> None:
        """Takes its parts; `norms` precede the attention and the feed-forward layer."""
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = norms
        self.self_attn = self_attn
        self.mlp = mlp
        self._dropout = dropout_probability

    def __call__(
        self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None, key: mx.array | None = None
    ) -> mx.array:
        """Maps [B, L, D] to [B, L, D]; `key` is dropout's, the rest as an attention layer takes it."""
        mixed_BLD = self.self_attn(self.attention_input(x_BLD), mask=mask, cache=cache)
        return self.after_attention(x_BLD, mixed_BLD, key=key)

    def attention_input(self, x_BLD: mx.array) -> mx.array:
        """What the attention layer gets of the block's input."""
        return self.input_layernorm(x_BLD)

    def after_attention(self, x_BLD: mx.array, mixed_BLD: mx.array, *, key: mx.array | None = None) -> mx.array:
        """The block's output from its input and what the attention layer gave."""
        keys = _branch_keys(key)
        x_BLD = x_BLD + dropout(mixed_BLD, self._dropout, keys[0])
        return x_BLD + dropout(self.mlp(self.post_attention_layernorm(x_BLD)), self._dropout, keys[1])


class PostNormBlock(nn.Module):
    """Normalises the residual stream after each branch was added."""

    def __init__(
        self,
        self_attn: Attention,
        mlp: FeedForward | GatedFeedForward,
        *,
        norms: tuple[nn.Module, nn.Module],
        dropout_probability: float,
    ) -> None:
        """Takes its parts; `norms` follow the attention and the feed-forward layer."""
        super().__init__()
        self.self_attn = self_attn
        self.attention_layernorm, self.output_layernorm = norms
        self.mlp = mlp
        self._dropout = dropout_probability

    def __call__(
        self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None, key: mx.array | None = None
    ) -> mx.array:
        """Maps [B, L, D] to [B, L, D]; `key` is dropout's, the rest as an attention layer takes it."""
        mixed_BLD = self.self_attn(self.attention_input(x_BLD), mask=mask, cache=cache)
        return self.after_attention(x_BLD, mixed_BLD, key=key)

    def attention_input(self, x_BLD: mx.array) -> mx.array:
        """What the attention layer gets of the block's input."""
        return x_BLD

    def after_attention(self, x_BLD: mx.array, mixed_BLD: mx.array, *, key: mx.array | None = None) -> mx.array:
        """The block's output from its input and what the attention layer gave."""
        keys = _branch_keys(key)
        x_BLD = self.attention_layernorm(x_BLD + dropout(mixed_BLD, self._dropout, keys[0]))
        return self.output_layernorm(x_BLD + dropout(self.mlp(x_BLD), self._dropout, keys[1]))


Block = PreNormBlock | PostNormBlock


def _branch_keys(key: mx.array | None) -> tuple[mx.array | None, mx.array | None]:
    if key is None:
        return None, None
    attention_key, mlp_key = mx.random.split(key)
    return attention_key, mlp_key
