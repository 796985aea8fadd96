"""Corpora: documents from the standard library, files, and the Hugging Face Hub. One file per kind."""

from collections.abc import Mapping
from typing import Any

from zoo.config import UserError, from_mapping
from zoo.data.corpora.config import DataConfig
from zoo.data.corpora.document import SPLITS, Corpus, Document, Split, documents_of
from zoo.data.corpora.hub import HubConfig
from zoo.data.corpora.jsonl import JsonlConfig
from zoo.data.corpora.parquet import ParquetConfig
from zoo.data.corpora.stdlib import StdlibConfig
from zoo.data.corpora.text import TextConfig

__all__ = [
    "CORPORA",
    "SPLITS",
    "Corpus",
    "DataConfig",
    "Document",
    "HubConfig",
    "JsonlConfig",
    "ParquetConfig",
    "Split",
    "StdlibConfig",
    "TextConfig",
    "data_config_from_mapping",
    "documents_of",
]

CORPORA: dict[str, type[DataConfig]] = {
    config.corpus: config for config in (StdlibConfig, TextConfig, JsonlConfig, ParquetConfig, HubConfig)
}


def data_config_from_mapping(mapping: Mapping[str, Any], *, path: str = "data") -> DataConfig:
    """Builds a corpus's config from what `configs/data/*.yaml` or a checkpoint holds.

    Args:
        mapping: `corpus` and the fields of that corpus.
        path: Config path for messages.

    Returns:
        The config of the corpus.

    Raises:
        UserError: On an unknown corpus, key or value.
    """
    rest = dict(mapping)
    corpus = rest.pop("corpus", None)
    if not isinstance(corpus, str) or corpus not in CORPORA:
        raise UserError(f"{path}: corpus must be a known one; got {corpus!r} (choices: {', '.join(CORPORA)})")
    return from_mapping(CORPORA[corpus], rest, path=path)
