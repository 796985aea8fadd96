"""What data is, by its content."""

import json
import os
from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.data import data_identity_from_mapping, prepare
from zoo.data.corpora import DataConfig, JsonlConfig, TextConfig
from zoo.data.identity import DataIdentity, TextDigest
from zoo.data.tokenizers import BytesConfig, SentencePieceConfig

TEXTS = {"train": ["one\n", "two words", "größe\n"], "validation": ["held out"]}


def identity(config: DataConfig, cache_dir: Path) -> DataIdentity:
    return prepare(config, BytesConfig(), cache_dir=cache_dir).identity


def in_files(folder: Path, texts: dict[str, list[str]] = TEXTS) -> TextConfig:
    for split, documents in texts.items():
        (folder / split).mkdir(parents=True)
        for number, text in enumerate(documents):
            (folder / split / f"{number}.txt").write_text(text, encoding="utf-8")
    return TextConfig(path=str(folder / "train"), validation_path=str(folder / "validation"), documents="file")


def in_lines(folder: Path, texts: dict[str, list[str]] = TEXTS) -> JsonlConfig:
    folder.mkdir()
    for split, documents in texts.items():
        lines = "".join(json.dumps({"story": text}) + "\n" for text in documents)
        (folder / f"{split}.lines").write_text(lines, encoding="utf-8")
    return JsonlConfig(
        path=str(folder / "train.lines"), validation_path=str(folder / "validation.lines"), field="story"
    )


def test_equal_documents_are_equal_data_whatever_their_folder_format_tokenizer_or_time(tmp_path, monkeypatch):
    first = identity(in_files(tmp_path / "first"), tmp_path)
    assert identity(in_lines(tmp_path / "lines"), tmp_path) == first
    other = in_files(tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.txt"):
        os.utime(path, (1, 1))
    assert prepare(other, SentencePieceConfig(vocab_size=530), cache_dir=tmp_path).identity == first
    monkeypatch.chdir(tmp_path)
    relative = TextConfig(path="first/../first/train", validation_path="./first/validation/*.txt", documents="file")
    assert identity(relative, tmp_path) == first


def test_it_is_kept_in_the_cache(tmp_path):
    config = in_files(tmp_path / "first")
    assert identity(config, tmp_path) == identity(config, tmp_path)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("documents", [["tow"], ["t", "wo"], ["one", "two"], ["two", "one"], ["two\n"]])
def test_another_text_order_or_border_of_a_split_is_another_identity_of_that_split_alone(tmp_path, split, documents):
    texts = {"train": ["two"], "validation": ["two", "three"]}
    before = identity(in_lines(tmp_path / "before", texts), tmp_path)
    after = identity(in_lines(tmp_path / "after", {**texts, split: documents}), tmp_path)
    changed = {name for name in texts if before.as_mapping()[name] != after.as_mapping()[name]}
    assert changed == {split}


def test_a_document_in_parts_is_the_document():
    whole, parts = TextDigest(), TextDigest()
    for text in ("one two", "three"):
        whole.add(text, complete=True)
    for text, complete in (("one ", False), ("two", True), ("", False), ("three", True)):
        parts.add(text, complete=complete)
    assert parts.hexdigest() == whole.hexdigest()


def test_an_identity_survives_its_mapping_and_nothing_else_is_one(tmp_path):
    found = identity(in_files(tmp_path / "first"), tmp_path)
    mapping = json.loads(json.dumps(found.as_mapping()))
    assert data_identity_from_mapping(mapping) == found
    for damaged in ({**mapping, "train": "x"}, {"train": mapping["train"]}, {**mapping, "test": mapping["train"]}):
        with pytest.raises(UserError, match=r"^data\.identity"):
            data_identity_from_mapping(damaged)
