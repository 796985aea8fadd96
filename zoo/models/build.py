"""From a config to a model."""

from zoo.models.bert import Bert
from zoo.models.config import BertConfig, GPTConfig, ModelConfig
from zoo.models.gpt import GPT
from zoo.models.llama import Llama

Model = GPT | Bert | Llama


def build_model(config: ModelConfig) -> Model:
    """Builds a model with fresh weights, which are computed when first used.

    Args:
        config: A family's config.

    Raises:
        UserError: If the attention does not support what the family needs.
    """
    if isinstance(config, GPTConfig):
        return GPT(config)
    if isinstance(config, BertConfig):
        return Bert(config)
    return Llama(config)
