import io
import json
import sys

import pytest

import recipes.training_run
from recipes.app import execute
from tests.recipes.tiny_train import Train


@pytest.fixture(autouse=True)
def quick_curve(monkeypatch):
    """A loss curve in words: the real one takes longer to draw than a tiny model to train."""

    def write(rows, path, *, title):
        path.write_text(f"{title}: {len(rows)} rows")

    monkeypatch.setattr(recipes.training_run, "draw_loss_curve", write)


@pytest.fixture
def train(text_corpus, tmp_path_factory, capsys):
    """Runs `train.py` on a tiny model; equal corpora share one cache."""
    cache = tmp_path_factory.getbasetemp() / "token-cache"
    return Train(text_corpus, cache, capsys)


@pytest.fixture
def speak(capsys, monkeypatch):
    """Runs a script greedily; gives its JSON object, or the line on stderr that ended it."""

    def call(main, *arguments: str, said: bytes = b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        name = main.__module__.rpartition(".")[2]
        code = execute(name, main, [*arguments, "temperature=0", "max_tokens=7"])
        captured = capsys.readouterr()
        return json.loads(captured.out.splitlines()[-1]) if code == 0 else captured.err

    return call
