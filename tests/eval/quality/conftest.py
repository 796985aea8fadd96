"""One held-out text for all tests."""

from pathlib import Path

import pytest

from tests.eval.quality.models import bytes_data
from zoo.data import TextData


@pytest.fixture(scope="package")
def data(text_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TextData:
    return bytes_data(text_corpus, tmp_path_factory.mktemp("cache"))
