"""BERT: a post-norm encoder with token types, a masked-token head and a classification head.

Devlin et al., "BERT", https://arxiv.org/abs/1810.04805.

    masked-token head: logits = E · norm(gelu(W x + b)) + b_V      with E the token embedding if tied
    classification:    scores = W_c tanh(W_p x_0 + b_p) + b_c      from the first token

Letters: B batch, L length, D hidden, V vocabulary, C classes.
"""

import mlx.core as mx
import mlx.nn as nn

from zoo.attention import Cache, build_attention
from zoo.config import UserError
from zoo.layers.feed_forward import FeedForward
from zoo.layers.norms import LayerNorm
from zoo.models.blocks import PostNormBlock
from zoo.models.config import BertConfig
from zoo.models.initialisation import initialise
from zoo.models.transformer import Transformer
from zoo.ops.activations import activation
from zoo.ops.masks import MaskSpec
from zoo.ops.random_keys import fresh_key


class MaskedTokenTransform(nn.Module):
    """The dense layer, activation and norm between the encoder and the output embedding."""

    def __init__(self, config: BertConfig) -> None:
        """Makes D -> D."""
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.norm_eps)
        self._activation = activation(config.activation)

    def __call__(self, x_BLD: mx.array) -> mx.array:
        """Maps [..., D] to [..., D]."""
        return self.norm(self._activation(self.dense(x_BLD)))


class Bert(Transformer):
    """A BERT-style encoder."""

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        """Builds and initialises the model.

        Raises:
            UserError: If the attention does not support what an encoder of this config needs.
        """
        key = fresh_key()
        shape = config.layer_shape

        def norm() -> LayerNorm:
            return LayerNorm(config.hidden_size, eps=config.norm_eps)

        layers = [
            PostNormBlock(
                build_attention(config.attention, shape, index),
                FeedForward(
                    config.hidden_size,
                    config.resolved_intermediate_size,
                    activation_name=config.activation,
                    bias=True,
                ),
                norms=(norm(), norm()),
                dropout_probability=config.dropout,
            )
            for index in range(config.num_layers)
        ]
        super().__init__(config, layers)
        self.embed_token_types = nn.Embedding(config.num_token_types, config.hidden_size)
        self.embed_norm = norm()
        if config.masked_token_head:
            self.masked_token_transform = MaskedTokenTransform(config)
            self.masked_token_bias = mx.zeros((config.vocab_size,))
        if config.pooler:
            self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        if config.classification_head:
            self.classifier = nn.Linear(config.hidden_size, config.num_classes)
        # Post-norm rescales the stream after every branch, so nothing accumulates with the depth.
        initialise(self, key, std=config.init_std, residual_std=config.init_std)

    def hidden(
        self,
        tokens_BL: mx.array,
        *,
        mask: MaskSpec | None = None,
        cache: list[Cache] | None = None,
        token_types_BL: mx.array | None = None,
    ) -> mx.array:
        """As `Transformer.hidden`; token_types_BL is int32, and None stands for type 0 everywhere."""
        if cache is not None:
            raise UserError("model: an encoder must not be given a cache; it reads whole texts at once")
        mask = self._resolve_mask(mask, cache)
        return self._run_layers(self.embedded(tokens_BL, mask, token_types_BL), mask, cache)

    def embedded(self, tokens_BL: mx.array, mask: MaskSpec, token_types_BL: mx.array | None = None) -> mx.array:
        types_BL = mx.zeros((1, 1), dtype=mx.int32) if token_types_BL is None else token_types_BL
        return self.embed_norm(self._embed(tokens_BL, mask) + self.embed_token_types(types_BL))

    def logits(self, x_BLD: mx.array) -> mx.array:
        if not self.config.masked_token_head:
            raise UserError("model: an encoder must have a masked-token head to score tokens; this one has none")
        x_BLD = self.masked_token_transform(x_BLD)
        head = self.embed_tokens.as_linear if self.config.tie_word_embeddings else self.lm_head
        return head(x_BLD) + self.masked_token_bias

    def scores(self, x_BLD: mx.array) -> mx.array:
        return self.class_scores(x_BLD) if self.config.classifies else self.logits(x_BLD)

    def class_scores(self, x_BD: mx.array) -> mx.array:
        """Scores of the classes from the hidden states of first tokens: [..., D] -> [..., C].

        Raises:
            UserError: If the model has no classification head.
        """
        if not self.config.classification_head:
            raise UserError("model: an encoder must have a classification head to score classes; this one has none")
        return self.classifier(mx.tanh(self.pooler(x_BD)))

    def classify(
        self,
        tokens_BL: mx.array,
        *,
        mask: MaskSpec | None = None,
        token_types_BL: mx.array | None = None,
    ) -> mx.array:
        """Scores of the classes, read from the first token.

        Args:
            tokens_BL: Token ids, int32.
            mask: Bidirectional; with lengths for right-padded rows. None for whole rows.
            token_types_BL: Token types, int32; None for type 0 everywhere.

        Returns:
            [B, C].

        Raises:
            UserError: As `hidden` does, and if the model has no classification head.
        """
        return self.class_scores(self.hidden(tokens_BL, mask=mask, token_types_BL=token_types_BL)[:, 0])

    def sentence_vectors(
        self,
        tokens_BL: mx.array,
        *,
        mask: MaskSpec | None = None,
        token_types_BL: mx.array | None = None,
    ) -> mx.array:
        """One vector for each text: the mean of its last hidden states, padding left out.

        Args:
            tokens_BL: Token ids, int32.
            mask: Bidirectional; with lengths for right-padded rows. None for whole rows.
            token_types_BL: Token types, int32; None for type 0 everywhere.

        Returns:
            [B, D], not scaled to a length.

        Raises:
            UserError: As `hidden` does.
        """
        x_BLD = self.hidden(tokens_BL, mask=mask, token_types_BL=token_types_BL)
        if mask is None or mask.lengths_B is None:
            return x_BLD.mean(axis=1)
        lengths_B = mask.lengths_B
        valid_BL = mx.arange(tokens_BL.shape[1]) < lengths_B[:, None]
        return mx.where(valid_BL[..., None], x_BLD, 0).sum(axis=1) / lengths_B[:, None].astype(x_BLD.dtype)

    def head_flops_per_token(self) -> int:
        if not self.config.masked_token_head:
            return 0
        hidden_size = self.config.hidden_size
        return 2 * hidden_size * (hidden_size + self.config.vocab_size)
