"""GPT-2: pre-norm LayerNorm, learned positions, GELU by its tanh approximation, biases everywhere, tied embeddings.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf. The one
projection `c_attn` of the original is three here (q_proj, k_proj, v_proj), so that key/value heads may be shared.
"""

from zoo.attention import build_attention
from zoo.layers.feed_forward import FeedForward
from zoo.layers.norms import LayerNorm
from zoo.models.blocks import PreNormBlock
from zoo.models.config import GPTConfig
from zoo.models.initialisation import depth_scaled_std, initialise
from zoo.models.language_model import LanguageModel
from zoo.ops.random_keys import fresh_key


class GPT(LanguageModel):
    """A GPT-2-style language model."""

    def __init__(self, config: GPTConfig) -> None:
        """Builds and initialises the model.

        Raises:
            UserError: If the attention does not support what a language model of this config needs.
        """
        key = fresh_key()
        shape = config.layer_shape

        def norm() -> LayerNorm:
            return LayerNorm(config.hidden_size, eps=config.norm_eps)

        layers = [
            PreNormBlock(
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
        super().__init__(config, layers, norm())
        initialise(self, key, std=config.init_std, residual_std=depth_scaled_std(config.init_std, config.num_layers))
