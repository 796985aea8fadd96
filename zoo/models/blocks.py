"""Transformer blocks: attention and feed-forward layers on a residual stream, normalised before or after.

    pre-norm:  x = x + attention(norm(x));  x = x + mlp(norm(x))      GPT-2, Llama
    post-norm: x = norm(x + attention(x));  x = norm(x + mlp(x))      BERT

Xiong et al., "On Layer Normalization in the Transformer Architecture", https://arxiv.org/abs/2002.04745.

Letters: B batch, L length, D hidden.
"""

import mlx.core as mx
import mlx.nn as nn

from zoo.attention import Attention, Cache
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
        dropout: float,
    ) -> None:
        """Takes its parts; `norms` precede the attention and the feed-forward layer."""
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = norms
        self.self_attn = self_attn
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        """Maps [B, L, D] to [B, L, D]; arguments as an attention layer takes them."""
        x_BLD = x_BLD + self.dropout(self.self_attn(self.input_layernorm(x_BLD), mask=mask, cache=cache))
        return x_BLD + self.dropout(self.mlp(self.post_attention_layernorm(x_BLD)))


class PostNormBlock(nn.Module):
    """Normalises the residual stream after each branch was added."""

    def __init__(
        self,
        self_attn: Attention,
        mlp: FeedForward | GatedFeedForward,
        *,
        norms: tuple[nn.Module, nn.Module],
        dropout: float,
    ) -> None:
        """Takes its parts; `norms` follow the attention and the feed-forward layer."""
        super().__init__()
        self.self_attn = self_attn
        self.attention_layernorm, self.output_layernorm = norms
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def __call__(self, x_BLD: mx.array, *, mask: MaskSpec, cache: Cache | None = None) -> mx.array:
        """Maps [B, L, D] to [B, L, D]; arguments as an attention layer takes them."""
        mixed_BLD = self.dropout(self.self_attn(x_BLD, mask=mask, cache=cache))
        x_BLD = self.attention_layernorm(x_BLD + mixed_BLD)
        y_BLD: mx.array = self.output_layernorm(x_BLD + self.dropout(self.mlp(x_BLD)))
        return y_BLD


Block = PreNormBlock | PostNormBlock
