"""Llama: pre-norm RMSNorm, rotary positions, gated feed-forward layers, grouped key/value heads.

Touvron et al., "LLaMA", https://arxiv.org/abs/2302.13971, and "Llama 2", https://arxiv.org/abs/2307.09288. The
config's switches also cover its relatives: biases on q, k and v (Qwen 2), RMS-normalised queries and keys
(Qwen 3), tied embeddings (small Llama 3).
"""

from zoo.attention import build_attention
from zoo.layers.feed_forward import GatedFeedForward
from zoo.layers.norms import RMSNorm
from zoo.models.blocks import PreNormBlock
from zoo.models.config import LlamaConfig
from zoo.models.initialisation import depth_scaled_std, initialise
from zoo.models.language_model import LanguageModel
from zoo.ops.random_keys import fresh_key


class Llama(LanguageModel):
    """A Llama-style language model."""

    def __init__(self, config: LlamaConfig) -> None:
        """Builds and initialises the model.

        Raises:
            UserError: If the attention does not support what a language model of this config needs.
        """
        key = fresh_key()
        shape = config.layer_shape

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, eps=config.norm_eps)

        layers = [
            PreNormBlock(
                build_attention(config.attention, shape, index),
                GatedFeedForward(
                    config.hidden_size,
                    config.resolved_intermediate_size,
                    activation_name=config.activation,
                    bias=config.mlp_bias,
                ),
                norms=(norm(), norm()),
                dropout_probability=config.dropout,
            )
            for index in range(config.num_layers)
        ]
        super().__init__(config, layers, norm())
        initialise(self, key, std=config.init_std, residual_std=depth_scaled_std(config.init_std, config.num_layers))
