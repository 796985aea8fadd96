"""Data: corpora, tokenizers, token shards on disk, and loaders whose batches are pure functions of (seed, step)."""

from zoo.data.corpora import SPLITS, DataConfig, data_config_from_mapping
from zoo.data.dataset import TokenCorpus, held_out_sample, prepare
from zoo.data.identity import DataIdentity, data_identity_from_mapping
from zoo.data.loader import Batch, CausalLoader, Loader, MaskedTokenLoader, ProcessShare
from zoo.data.shards import TokenSplit
from zoo.data.source import (
    DERIVED_KEYS,
    Data,
    DataSource,
    ExampleData,
    TextData,
    data_description,
    data_source_from_mapping,
    open_data,
    text_source_from_mapping,
)
from zoo.data.synthetic import SyntheticLoader, SyntheticTask
from zoo.data.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, tokenizer_config_from_mapping

__all__ = [
    "DERIVED_KEYS",
    "SPLITS",
    "Batch",
    "CausalLoader",
    "Data",
    "DataConfig",
    "DataIdentity",
    "DataSource",
    "ExampleData",
    "Loader",
    "MaskedTokenLoader",
    "ProcessShare",
    "SyntheticLoader",
    "SyntheticTask",
    "TextData",
    "TokenCorpus",
    "TokenSplit",
    "Tokenizer",
    "TokenizerConfig",
    "data_config_from_mapping",
    "data_description",
    "data_identity_from_mapping",
    "data_source_from_mapping",
    "held_out_sample",
    "load_tokenizer",
    "open_data",
    "prepare",
    "text_source_from_mapping",
    "tokenizer_config_from_mapping",
]
