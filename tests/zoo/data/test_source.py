"""One door to data: what is learnt and what is held out are never confused, whatever the data are."""

import json

import numpy as np
import pytest

from zoo.data import SPLITS, SyntheticTask, data_description, open_data
from zoo.data.corpora.text import TextConfig
from zoo.data.examples import ExamplesConfig
from zoo.data.source import DERIVED_KEYS
from zoo.data.synthetic import MultiQueryRecall
from zoo.data.tokenizers import BytesTokenizer

SIZES = {"batch_size": 3, "sequence_length": 21, "seed": 4}
# A letter each: no token is of both splits.
LETTERS = {"train": "a", "validation": "b"}


@pytest.fixture(params=["text", "examples", "mqar"])
def data(request, tmp_path):
    folders = {split: tmp_path / split for split in SPLITS}
    for split, folder in folders.items():
        folder.mkdir()
        text = LETTERS[split] * 90
        record = text if request.param == "text" else json.dumps({"text": text[:19]})
        (folder / f"one.{'txt' if request.param == 'text' else 'jsonl'}").write_text(record)
    if request.param == "mqar":
        return open_data(MultiQueryRecall(length=21, num_pairs=(2,)), None)
    kind = TextConfig if request.param == "text" else ExamplesConfig
    places = {"path": str(folders["train"]), "validation_path": str(folders["validation"])}
    return open_data(kind(**places, cache_dir=str(tmp_path / "cache")), BytesTokenizer())


def test_each_split_has_rows_of_its_own(data):
    train = data.loader("train", causal=True, **SIZES).batch(0)
    held_out = next(data.loader("validation", causal=True, **SIZES).validation_batches(1))
    if isinstance(data, SyntheticTask):
        assert not np.array_equal(train.inputs_BL, held_out.inputs_BL)
        return
    for split, batch in (("train", train), ("validation", held_out)):
        found = set(data.tokenizer.decode(batch.targets_BL[batch.weights_BL > 0].tolist()))
        assert found & set(LETTERS.values()) == {LETTERS[split]}


def test_a_description_says_what_the_data_were_and_what_came_of_them(data):
    description = data_description(data)
    assert description["corpus"] == data.name
    assert description.keys() >= DERIVED_KEYS
    assert "cache_dir" not in description
    assert (description["tokenizer"] is None) == isinstance(data, SyntheticTask)
