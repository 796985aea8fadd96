"""Tensor parallelism: each process holds a share of every layer's heads and feed-forward weights, and of the words.

What goes into a layer, and what comes out of it, is whole in every process; inside, each computes on its share, and one
sum over the processes puts the branches together. Shoeybi et al., "Megatron-LM", https://arxiv.org/abs/1909.08053.

Letters: B batch, L length, D hidden, V vocabulary.
"""

import dataclasses
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import shard_linear

from zoo.attention import Attention, LayerPattern, LayerShape, VariantConfig, mechanism
from zoo.attention.projected import ProjectedAttention
from zoo.config import UserError, require
from zoo.models.transformer import Transformer


class ShardedWords(nn.Module):
    """A part of the rows of an embedding or of an output projection, [V, D], quantized or not; whole from outside."""

    def __init__(self, whole: nn.Module, vocab_size: int, group: mx.distributed.Group) -> None:
        """Takes this process's rows of a module whose parameters all have V rows."""
        super().__init__()
        self.part = whole
        self._group, self._vocab_size = group, vocab_size
        self._rows = -(-vocab_size // group.size())
        self._first = min(group.rank() * self._rows, vocab_size)
        last = min(self._first + self._rows, vocab_size)
        missing = self._rows - (last - self._first)

        def share(array: mx.array) -> mx.array:
            # Shares are of one size, for exchanges are.
            return mx.contiguous(mx.pad(array[self._first : last], [(0, missing), *[(0, 0)] * (array.ndim - 1)]))

        whole.update({name: share(array) for name, array in whole.parameters().items()})


class ShardedEmbedding(ShardedWords):
    """A token embedding, which may be the output projection as well."""

    def __call__(self, tokens_BL: mx.array) -> mx.array:
        """[B, L] -> [B, L, D]."""
        own_BL = tokens_BL - self._first
        is_own_BL = (own_BL >= 0) & (own_BL < self._rows)
        x_BLD = self.part(mx.where(is_own_BL, own_BL, 0))
        found = mx.where(is_own_BL[..., None], x_BLD, mx.zeros((), dtype=x_BLD.dtype))
        return mx.distributed.all_sum(found, group=self._group)

    def as_linear(self, x_BLD: mx.array) -> mx.array:
        """[..., D] -> [..., V]."""
        return _gathered(self.part.as_linear(x_BLD), self._vocab_size, self._group)


class ShardedHead(ShardedWords):
    """An output projection of its own."""

    def __call__(self, x_BLD: mx.array) -> mx.array:
        """[..., D] -> [..., V]."""
        return _gathered(self.part(x_BLD), self._vocab_size, self._group)


def _gathered(scores: mx.array, vocab_size: int, group: mx.distributed.Group) -> mx.array:
    """The scores of all words from those of each process's: an exchange joins along the first axis."""
    whole = mx.distributed.all_gather(mx.contiguous(mx.moveaxis(scores, -1, 0)), group=group)
    return mx.moveaxis(whole, 0, -1)[..., :vocab_size]


def shard(model: Transformer, group: mx.distributed.Group) -> None:
    """Keeps this process's share of a model's weights, in place; the model then gives the same logits in every process.

    Args:
        model: A language model, for generation; its weights need not have been evaluated.
        group: The processes.

    Raises:
        UserError: If the model cannot be split among so many, with what speaks against it.
    """
    config, size = model.config, group.size()
    require(config.causal, "launch.processes", "be 1 for an encoder, which is not split", size)
    require(model.adapters is None, "launch.processes", "be 1 with adapters, which are not split", size)
    require(config.positions != "alibi", "launch.processes", "be 1 with ALiBi, whose biases count the heads", size)
    for index, layer in enumerate(model.layers):
        layer.self_attn = _sharded_attention(layer.self_attn, config.attention, index, group)
        for name in ("gate_proj", "up_proj", "down_proj"):
            if name in layer.mlp:
                layer.mlp[name] = _sharded_linear(layer.mlp[name], group, inwards=name == "down_proj")
    # Modules lie in a dictionary, and these take the place of MLX's.
    model["embed_tokens"] = ShardedEmbedding(model.embed_tokens, config.vocab_size, group)
    if not config.tie_word_embeddings:
        model["lm_head"] = ShardedHead(model.lm_head, config.vocab_size, group)
    mx.eval(model.parameters())


def _sharded_attention(
    layer: Attention, attention: VariantConfig | LayerPattern, index: int, group: mx.distributed.Group
) -> Attention:
    """A layer of this process's heads, with their part of the projections."""
    chosen, size = attention.layer(index), group.size()
    declared = mechanism(chosen.mechanism)
    if not isinstance(layer, ProjectedAttention) or declared.mixer is None or not declared.separate_heads:
        raise UserError(
            f"launch.processes must be 1 for {chosen.mechanism}, whose heads are not independent; got {size}"
        )
    whole = layer.shape
    for name in ("num_heads", "num_kv_heads"):
        heads = getattr(whole, name)
        if heads % size:
            raise UserError(
                f"launch.processes must divide the {heads} heads of model.{name} (attention={chosen.name}); got {size}"
            )
    shape: LayerShape = dataclasses.replace(
        whole, num_heads=whole.num_heads // size, num_kv_heads=whole.num_kv_heads // size
    )
    part = ProjectedAttention(declared.mixer(chosen.parameters, chosen.implementation, shape))
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        part[name] = _sharded_linear(layer[name], group, inwards=name == "o_proj")
    for name in ("q_norm", "k_norm"):
        if name in layer:
            part[name] = layer[name]
    first = group.rank() * shape.num_heads
    for name in part.learned_names:
        if layer[name].shape[:1] != (whole.num_heads,):
            raise UserError(
                f"launch.processes must be 1 for {chosen.mechanism}, whose {name} is not of heads; got {size}"
            )
        part[name] = mx.contiguous(layer[name][first : first + shape.num_heads])
    part.eval()
    return part


def _sharded_linear(linear: nn.Module, group: mx.distributed.Group, *, inwards: bool) -> nn.Module:
    sharding = "sharded-to-all" if inwards else "all-to-sharded"
    try:
        return cast(nn.Module, shard_linear(linear, sharding, group=group))
    except ValueError as error:
        raise UserError(f"launch.processes must be a number by which weights can be split; {error}") from None
