"""Examples to fine-tune on: texts, prompts with completions, and conversations, each a row of its own."""

from zoo.data.examples.config import ExamplesConfig, KeysConfig, examples_config_from_mapping
from zoo.data.examples.loader import ExampleLoader
from zoo.data.examples.tokens import ExampleCorpus, ExampleSplit, prepare_examples

__all__ = [
    "ExampleCorpus",
    "ExampleLoader",
    "ExampleSplit",
    "ExamplesConfig",
    "KeysConfig",
    "examples_config_from_mapping",
    "prepare_examples",
]
