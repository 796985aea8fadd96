from pathlib import Path

import pytest

from zoo.data import TextData, open_data
from zoo.data.corpora.text import TextConfig
from zoo.data.tokenizers import BytesTokenizer


@pytest.fixture(scope="package")
def data(text_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TextData:
    """The corpus of the tests, byte by byte, with much of it held out."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return open_data(TextConfig(path=str(text_corpus), validation_fraction=0.3, cache_dir=cache), BytesTokenizer())
