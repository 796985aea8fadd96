"""What GPT, Llama and BERT share: embeddings, the walk through the layers, and the accounts.

Letters: B batch, L length, D hidden, V vocabulary.
"""

import abc
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_reduce

from zoo.attention import Cache
from zoo.config import UserError
from zoo.layers.dropout import dropout
from zoo.models.blocks import Block
from zoo.models.config import ModelConfig
from zoo.ops.masks import MaskSpec
from zoo.ops.random_keys import fresh_key

_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding)


class Transformer(nn.Module, abc.ABC):
    """Token embedding, optional learned positions, and a stack of blocks.

    Attributes:
        config: What the model was built from.
        layers: The blocks, in order; each has its attention layer as `self_attn`.
        adapters: What `zoo.models.adapters` has added; None for a model of its own weights.
    """

    adapters: Any

    def __init__(self, config: ModelConfig, layers: Sequence[Block]) -> None:
        """Makes the embeddings around blocks that a family has built."""
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(config.max_seq_len, config.hidden_size)
        self.layers = list(layers)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._checkpoint_gradients = False
        self.adapters = None

    @abc.abstractmethod
    def hidden(
        self, tokens_BL: mx.array, *, mask: MaskSpec | None = None, cache: list[Cache] | None = None
    ) -> mx.array:
        """The last hidden states, normalised and ready for the heads.

        Args:
            tokens_BL: Token ids, int32.
            mask: What may be attended to; None for the family's default over whole rows.
            cache: What `make_cache` returned, updated in place; None to process whole sequences.

        Returns:
            [B, L, D].

        Raises:
            UserError: If the text is longer than learned positions allow, or the mask is of the other family's kind.
        """

    @abc.abstractmethod
    def embedded(self, tokens_BL: mx.array, mask: MaskSpec) -> mx.array:
        """What the first block gets of whole rows, but for dropout: [B, L, D]."""

    @abc.abstractmethod
    def logits(self, x_BLD: mx.array) -> mx.array:
        """Scores of the vocabulary from hidden states: [..., D] -> [..., V]."""

    def scores(self, x_BLD: mx.array) -> mx.array:
        """What training judges: logits, or of a classifier the scores of the classes, of first tokens."""
        return self.logits(x_BLD)

    def projection(self) -> mx.array | None:
        """The matrix [V, D] if the scores are x @ matrix.T and nothing else; None if they are not known to be."""
        return None

    @abc.abstractmethod
    def head_flops_per_token(self) -> int:
        """Useful operations of `logits` for one token."""

    def __call__(
        self, tokens_BL: mx.array, *, mask: MaskSpec | None = None, cache: list[Cache] | None = None
    ) -> mx.array:
        """Token ids to scores of the vocabulary.

        Args:
            tokens_BL: Token ids, int32.
            mask: What may be attended to; None for the family's default over whole rows.
            cache: What `make_cache` returned, updated in place; None to process whole sequences.

        Returns:
            [B, L, V] in the dtype of the weights.

        Raises:
            UserError: As `hidden` does.
        """
        return self.logits(self.hidden(tokens_BL, mask=mask, cache=cache))

    def make_cache(self) -> list[Cache]:
        """One empty cache for each layer.

        Raises:
            UserError: If the model or its attention cannot decode.
        """
        return [layer.self_attn.make_cache() for layer in self.layers]

    def checkpoint_gradients(self, enabled: bool = True) -> None:
        """Chooses whether training recomputes each block in the backward pass instead of keeping its activations."""
        self._checkpoint_gradients = enabled

    def num_parameters(self) -> int:
        """How many there are: a tied output projection counts once, a quantized weight by the numbers it stands for."""
        stored = tree_reduce(lambda count, array: count + array.size, self.parameters(), 0)
        return stored + sum(_packed(each) for each in self.modules() if isinstance(each, _QUANTIZED))

    def flops(self, *, batch_size: int = 1, query_length: int, key_length: int, predicted: int) -> int:
        """Useful floating-point operations of a forward pass.

        A multiply-add counts as 2. Counts projections, the scores that the attention's pattern allows, feed-forward
        layers and the head; not lookups, norms, activations or masked scores.

        Args:
            batch_size: B.
            query_length: Tokens of a row that are processed.
            key_length: Those that may be attended to: with a cache, its own as well.
            predicted: Tokens of the whole batch that get logits.
        """
        row = sum(
            layer.self_attn.flops(query_length=query_length, key_length=key_length)
            + query_length * layer.mlp.flops_per_token
            for layer in self.layers
        )
        return batch_size * row + predicted * self.head_flops_per_token()

    def flops_per_token(self, length: int) -> int:
        """`flops` of one token in a row of `length` tokens, all with logits: the mean over the row, rounded down."""
        return self.flops(query_length=length, key_length=length, predicted=length) // length

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        """Bytes that the caches hold after `length` tokens were decoded one by one."""
        return sum(
            layer.self_attn.cache_bytes(batch_size=batch_size, length=length, dtype=dtype) for layer in self.layers
        )

    def _embed(self, tokens_BL: mx.array, mask: MaskSpec) -> mx.array:
        x_BLD = self.embed_tokens(tokens_BL)
        if self.config.positions == "learned":
            length = tokens_BL.shape[1]
            _require_within(self.config.max_seq_len, mask, length)
            x_BLD = x_BLD + self.embed_positions(mask.positions(length))
        return x_BLD

    def _run_layers(self, x_BLD: mx.array, mask: MaskSpec, cache: list[Cache] | None) -> mx.array:
        if x_BLD.shape[1] == 0:
            # No attention needs a meaning for no token.
            return x_BLD
        caches: list[Cache | None] = [None] * len(self.layers) if cache is None else cache
        embedding_key, *keys = self._dropout_keys()
        x_BLD = dropout(x_BLD, self.config.dropout, embedding_key)
        for layer, layer_cache, key in zip(self.layers, caches, keys, strict=True):
            run = nn.utils.checkpoint(layer) if self._checkpoint_gradients and layer_cache is None else layer
            x_BLD = run(x_BLD, mask=mask, cache=layer_cache, key=key)
        return x_BLD

    def _dropout_keys(self) -> list[mx.array | None]:
        count = len(self.layers) + 1
        if not self.training or self.config.dropout == 0:
            return [None] * count
        return list(mx.random.split(fresh_key(), count))

    def _resolve_mask(self, mask: MaskSpec | None, cache: list[Cache] | None) -> MaskSpec:
        if mask is None:
            return MaskSpec(causal=self.config.causal, offset=cache_offset(cache))
        if mask.causal != self.config.causal:
            raise UserError(f"mask: causal must be {self.config.causal} in a {self.config.family}; got {mask.causal}")
        return mask


def _packed(layer: nn.QuantizedLinear | nn.QuantizedEmbedding) -> int:
    """How many more numbers a quantized weight stands for than its layer stores, those of its groups included."""
    extra = sum(layer[name].size for name in ("scales", "biases") if name in layer)
    return layer.weight.size * 32 // layer.bits - layer.weight.size - extra


def cache_offset(cache: list[Cache] | None) -> int | mx.array:
    """How many tokens the caches of a model have seen.

    Args:
        cache: What `make_cache` returned, or None.

    Returns:
        An int, or int32 [B] when the rows have different histories.
    """
    if not cache:
        return 0
    return cache[0].offset


def _require_within(max_seq_len: int, mask: MaskSpec, length: int) -> None:
    before = mask.offset if isinstance(mask.offset, int) else int(np.array(mask.offset).max())
    if before + length > max_seq_len:
        raise UserError(
            f"model: max_seq_len must be at least the text's {before + length} tokens with learned positions; "
            f"got {max_seq_len} (shorten the text, or train with model.positions=rotary, alibi or none)"
        )
