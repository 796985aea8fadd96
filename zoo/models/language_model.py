"""Causal language models: what GPT and Llama share on top of a transformer.

Letters: B batch, L length, D hidden, V vocabulary.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from zoo.attention import Cache
from zoo.models.blocks import Block
from zoo.models.config import GPTConfig, LlamaConfig
from zoo.models.transformer import Transformer
from zoo.ops.masks import MaskSpec


class LanguageModel(Transformer):
    """Predicts the next token; a family adds its blocks and its last norm."""

    def __init__(self, config: GPTConfig | LlamaConfig, layers: Sequence[Block], norm: nn.Module) -> None:
        """Takes the family's blocks and the norm that follows the last one."""
        super().__init__(config, layers)
        self.norm = norm

    def hidden(
        self, tokens_BL: mx.array, *, mask: MaskSpec | None = None, cache: list[Cache] | None = None
    ) -> mx.array:
        mask = self._resolve_mask(mask, cache)
        return self.norm(self._run_layers(self.embedded(tokens_BL, mask), mask, cache))

    def embedded(self, tokens_BL: mx.array, mask: MaskSpec) -> mx.array:
        return self._embed(tokens_BL, mask)

    def logits(self, x_BLD: mx.array) -> mx.array:
        head = self.embed_tokens.as_linear if self.config.tie_word_embeddings else self.lm_head
        return head(x_BLD)

    def projection(self) -> mx.array | None:
        head = self.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        # Adapters and quantization put other modules in their place.
        plain = type(head) in (nn.Embedding, nn.Linear) and "bias" not in head
        return head.weight if plain else None

    def head_flops_per_token(self) -> int:
        return 2 * self.config.hidden_size * self.config.vocab_size
