"""Of every batch of examples each process has its rows, and together they have all."""

import json

import pytest

from zoo.config import UserError
from zoo.data.examples import ExampleLoader, ExamplesConfig, prepare_examples
from zoo.data.loader import ProcessShare
from zoo.data.tokenizers import BytesTokenizer


def letters(folder):
    """Texts of 1 to 40 letters."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": chr(97 + n % 26) * (n + 1)}) + "\n" for n in range(40)))
    config = ExamplesConfig(path=str(path), validation_fraction=0.2)
    return prepare_examples(config, BytesTokenizer(), cache_dir=folder / "cache")


def loader(corpus, **options):
    return ExampleLoader(corpus.train, corpus.tokenizer, **{"sequence_length": 64, "seed": 4, **options})


@pytest.mark.parametrize("pack", [False, True])
def test_processes_have_their_rows_of_every_batch(tmp_path, pack):
    corpus = letters(tmp_path)

    def rows(batch):
        shown = zip(batch.inputs_BL, batch.targets_BL, batch.weights_BL, batch.lengths_B, strict=True)
        return [[each[:length].tolist() for each in arrays] for *arrays, length in shown]

    whole = loader(corpus, batch_size=4, pack=pack)
    parts = [loader(corpus, batch_size=4, pack=pack, share=ProcessShare(rank=rank, world_size=2)) for rank in range(2)]
    for step in (0, 5):
        assert rows(whole.batch(step)) == [row for part in parts for row in rows(part.batch(step))]
    for batch, *own in zip(whole.validation_batches(), *(part.validation_batches() for part in parts), strict=True):
        assert rows(batch) == [row for part in own for row in rows(part)]
    with pytest.raises(UserError, match="batch_size must be a multiple of the 2 processes"):
        loader(corpus, batch_size=3, share=ProcessShare(world_size=2))
