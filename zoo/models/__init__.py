"""The model families: GPT, BERT and Llama. They see the attention interface, never a mechanism."""

from zoo.models.bert import Bert
from zoo.models.build import Model, build_model
from zoo.models.config import BertConfig, GPTConfig, LlamaConfig, ModelConfig, model_config_from_mapping
from zoo.models.copies import copied
from zoo.models.gpt import GPT
from zoo.models.llama import Llama
from zoo.models.price import Load, ModelPrice
from zoo.models.transformer import cache_offset

__all__ = [
    "GPT",
    "Bert",
    "BertConfig",
    "GPTConfig",
    "Llama",
    "LlamaConfig",
    "Load",
    "Model",
    "ModelConfig",
    "ModelPrice",
    "build_model",
    "cache_offset",
    "copied",
    "model_config_from_mapping",
]
