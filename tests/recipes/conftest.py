import pytest

from tests.recipes.tiny_train import Train


@pytest.fixture
def train(text_corpus, tmp_path_factory, capsys):
    """Runs `train.py` on a tiny model; equal corpora share one cache."""
    cache = tmp_path_factory.getbasetemp() / "token-cache"
    return Train(text_corpus, cache, capsys)
