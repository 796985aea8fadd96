"""A model reads before a text what stood there in its training, in a checkpoint of today and in an older one."""

import shutil
from pathlib import Path

import pytest

from tests.zoo.data.tokenizers.checkpoints import metaspace_checkpoint
from zoo.checkpoints import load_model
from zoo.checkpoints.manifest import MANIFEST, write_manifest
from zoo.data import CausalLoader, load_tokenizer, prepare
from zoo.data.corpora.text import TextConfig
from zoo.data.tokenizers.interface import TOKENIZER_FILE


def first_tokens(folder: Path, cache: Path, tokenizer, text: str) -> list[int]:
    """The beginning of the row that holds a document."""
    corpus = prepare(TextConfig(path=str(folder)), tokenizer, cache_dir=cache)
    loader = CausalLoader(corpus.train, batch_size=1, sequence_length=64, seed=0, packing="documents")
    rows = [loader.batch(step).inputs_BL[0].tolist() for step in range(corpus.train.num_documents)]
    exact = tokenizer.encode(text)
    (own,) = (row for row in rows if row[1 : 1 + len(exact)] == exact)
    return own[: 1 + len(exact)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(["abc def", "x y z", "fed cba", "aaa", "a b c d", "bcd"]):
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("start", ["<s>", "", None])
def test_prompts_of_a_model_that_was_trained_here_begin_as_its_rows(train, folder, tmp_path, start):
    theirs = metaspace_checkpoint(tmp_path / "theirs", start=start)
    more = [f"data.path={folder}", "data.validation_fraction=0.3", "data.packing=documents"]
    more += ["tokenizer=pretrained", f"tokenizer.path={theirs}", "training.steps=1", "training.sequence_length=9"]
    # Of bytes in the fixture's own command line.
    train(*more, f"run_dir={tmp_path / 'run'}")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step_*")
    old = shutil.copytree(checkpoint, tmp_path / "old")
    (old / TOKENIZER_FILE).unlink()
    (old / MANIFEST).unlink()
    write_manifest(old)
    for saved in (checkpoint, old):
        tokenizer = load_model(saved)[1]
        assert tokenizer.start_id == tokenizer.eos_id == 2
        assert tokenizer.encode_prompt("aaa") == first_tokens(folder, tmp_path / "cache", tokenizer, "aaa")


@pytest.mark.parametrize("start", ["<s>", "", None])
def test_rows_of_a_model_from_elsewhere_begin_as_its_tokenizer_says(folder, tmp_path, start):
    tokenizer = load_tokenizer(metaspace_checkpoint(tmp_path / "theirs", start=start))
    begins = first_tokens(folder, tmp_path / "cache", tokenizer, "aaa")[0]
    assert begins == tokenizer.start_id == (2 if start is None else 1)
    if start:
        assert begins == tokenizer.encode_prompt("aaa")[0]
