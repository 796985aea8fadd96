"""From a corpus to tokens on disk."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.zoo.data.listed import SOURCE
from tests.zoo.data.tokenizers.checkpoints import word_piece_checkpoint
from zoo.config import UserError
from zoo.data import TokenCorpus, TokenSplit, dataset, load_tokenizer, prepare, tokenizer_config_from_mapping
from zoo.data.corpora import DataConfig, HubConfig, JsonlConfig, ParquetConfig, StdlibConfig, TextConfig, files
from zoo.data.shards import token_dtype
from zoo.data.tokenizers import BytesConfig, BytesTokenizer, SentencePieceConfig

BYTES = BytesConfig()


def stories(folder: Path, texts: list[str], **settings: object) -> DataConfig:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "stories.jsonl").write_text(lines, encoding="utf-8")
    return JsonlConfig(path=str(folder), cache_dir=str(folder / "cache"), **settings)


def documents(split: TokenSplit) -> list[str]:
    starts = [1, *split.document_ends_N[:-1]]
    return [
        split.tokenizer.decode(split.tokens_T[start:end].tolist())
        for start, end in zip(starts, split.document_ends_N, strict=True)
    ]


def entries(config: DataConfig, section: str) -> list[str]:
    assert config.cache_dir is not None
    return sorted(path.name for path in Path(config.cache_dir, section).glob("*"))


@pytest.mark.parametrize("tokenizer", [BYTES, SentencePieceConfig(vocab_size=530)])
def test_documents_come_back_from_their_split_in_order(tmp_path, tokenizer):
    texts = [f"story {index}{SOURCE[:index]}" for index in range(97)]
    corpus = prepare(stories(tmp_path, texts, validation_fraction=0.3), tokenizer)
    train, validation = documents(corpus.train), documents(corpus.validation)
    assert sorted(train + validation) == sorted(texts)
    assert min(len(train), len(validation)) > 10
    # The very first document waits for the first one that is held out.
    train.remove(texts[0])
    assert train == sorted(train, key=texts.index)
    assert validation == sorted(validation, key=texts.index)


def test_documents_are_kept_apart_by_end_tokens_and_know_their_source(tmp_path):
    split = prepare(stories(tmp_path, ["ab", "c", "größe"]), BYTES).train
    eos = split.tokenizer.eos_id
    assert split.tokens_T.tolist() == [eos, *b"c", eos, *"größe".encode(), eos]
    assert split.document_ends_N.tolist() == [3, 11]
    assert split.num_documents == 2
    assert [split.document_at(index) for index in range(11)] == [0] * 3 + [1] * 8
    assert [split.source(number).rpartition("/")[2] for number in range(2)] == ["stories.jsonl:2", "stories.jsonl:3"]


def test_tokens_are_mapped_and_as_small_as_the_vocabulary_allows(tmp_path):
    split = prepare(stories(tmp_path, ["ab", "c"]), BYTES).train
    assert isinstance(split.tokens_T, np.memmap)
    assert split.tokens_T.dtype == np.uint16
    assert not split.tokens_T.flags.writeable
    assert [token_dtype(size).itemsize for size in (259, 2**16, 2**16 + 1)] == [2, 2, 4]


def test_the_bytes_of_a_splits_tokens_are_the_bytes_of_its_documents(tmp_path):
    texts = [f"größe {index} \u2581" for index in range(31)]
    corpus = prepare(stories(tmp_path, texts), SentencePieceConfig(vocab_size=530))
    lengths_V = corpus.tokenizer.token_byte_lengths()
    total = sum(int(lengths_V[split.tokens_T].sum()) for split in (corpus.train, corpus.validation))
    assert total == sum(len(text.encode()) for text in texts)


def test_tokens_are_made_once_and_named_by_content(tmp_path, monkeypatch):
    config = stories(tmp_path, ["a", "b", "c"])
    first = prepare(config, BYTES)
    monkeypatch.setattr(dataset, "_write", lambda *_: pytest.fail("written again"))
    again = prepare(config, BytesTokenizer())
    assert (first.fingerprint, first.identity) == (again.fingerprint, again.identity)
    assert len(entries(config, "tokens")) == 1
    assert documents(again.train) == documents(first.train)


def test_another_content_field_fraction_or_tokenizer_is_another_fingerprint(tmp_path):
    texts = [f"story {index}" for index in range(50)]
    prints = [
        prepare(stories(tmp_path, texts), BYTES).fingerprint,
        prepare(stories(tmp_path, texts), SentencePieceConfig(vocab_size=530)).fingerprint,
        prepare(stories(tmp_path, texts), SentencePieceConfig(vocab_size=531, max_piece_length=2)).fingerprint,
        prepare(stories(tmp_path, texts, validation_fraction=0.4), BYTES).fingerprint,
        prepare(stories(tmp_path, [*texts, "one more"]), BYTES).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


def test_a_long_document_read_in_parts_is_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_BYTES", 16)
    monkeypatch.setattr(dataset, "_BATCH_LENGTH", 40)
    texts = {"a.txt": "line\n" * 50, "b.txt": "line\n" * 29 + "end", "c.txt": "short"}
    (tmp_path / "in").mkdir()
    for name, text in texts.items():
        (tmp_path / "in" / name).write_text(text, encoding="utf-8")
    corpus = prepare(TextConfig(path=str(tmp_path / "in")), BYTES, cache_dir=tmp_path / "cache")
    assert sorted(documents(corpus.train) + documents(corpus.validation)) == sorted(texts.values())


def test_the_cache_folder_is_the_arguments_then_the_configs_then_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "environment"))
    config = stories(tmp_path, ["a", "b"])
    prepare(config, BYTES, cache_dir=tmp_path / "argument")
    assert (tmp_path / "argument" / "tokens").is_dir()
    assert not (tmp_path / "cache").exists()
    prepare(config, BYTES)
    assert (tmp_path / "cache" / "tokens").is_dir()
    assert not (tmp_path / "environment").exists()
    prepare(JsonlConfig(path=str(tmp_path)), BYTES)
    assert (tmp_path / "environment" / "tokens").is_dir()


@pytest.mark.parametrize("cache_dir", ["~nobody-is-called-so", "a\0b", "\ud800", "/dev/null/x", "x" * 300])
def test_a_cache_folder_that_cannot_be_is_one_line(tmp_path, monkeypatch, cache_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"^data\.cache_dir(:| must)") as raised:
        prepare(JsonlConfig(path="a.jsonl", cache_dir=cache_dir), BYTES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tokenizer", [BYTES, SentencePieceConfig(vocab_size=530)])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the corpus is empty"),
        (b'{"text": ""}\n\n', "the corpus is empty"),
        (b'{"text": "a"}\n{"text": "b"}\n{"txt": "c"}\n', r"stories\.jsonl:3: data\.field"),
        (b'{"text": "a"}\n{"text": "b"}\n{"text": \n', r"stories\.jsonl:3: must be a JSON object"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"stories\.jsonl:2: must be UTF-8"),
    ],
)
def test_nothing_stays_in_the_cache_of_a_corpus_that_cannot_be_read(tmp_path, tokenizer, content, message):
    config = stories(tmp_path, [])
    (tmp_path / "stories.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        prepare(config, tokenizer)
    assert "\n" not in str(raised.value)
    assert entries(config, "tokens") == entries(config, "tokenizers") == []


def test_a_corpus_of_one_short_document_has_nothing_to_hold_out(tmp_path):
    config = stories(tmp_path, ["only one"])
    with pytest.raises(UserError, match=r"^data\.path must hold more text; a share of 0\.05 of its only document"):
        prepare(config, BYTES)
    assert entries(config, "tokens") == []
    # What the message offers helps.
    prepare(stories(tmp_path, ["only one"], validation_fraction=0.2), BYTES)
    prepare(stories(tmp_path, ["only one" * 9]), BYTES)


ONE = "one text, all in one line, " * 40


def one_text(folder: Path) -> Iterator[DataConfig]:
    """The same text as the only document of every kind of corpus."""
    (folder / "hub").mkdir()
    (folder / "a.txt").write_text(ONE, encoding="utf-8")
    (folder / "a.jsonl").write_text(json.dumps({"text": ONE}), encoding="utf-8")
    pq.write_table(pa.table({"text": [ONE]}), folder / "a.parquet")
    shutil.copy(folder / "a.parquet", folder / "hub" / "train.parquet")
    (folder / "library").mkdir()
    (folder / "library" / "a.py").write_text(ONE, encoding="utf-8")
    yield from (TextConfig(path=str(folder / "a.txt"), documents=kind) for kind in ("auto", "file", "blank_line"))
    yield JsonlConfig(path=str(folder / "a.jsonl"))
    yield ParquetConfig(path=str(folder / "a.parquet"))
    yield HubConfig(path=str(folder / "hub"), streaming=True)
    yield StdlibConfig(path=str(folder / "library"))


@pytest.mark.parametrize("part_bytes", [100, files.PART_BYTES])
@pytest.mark.parametrize("tokenizer", [BYTES, SentencePieceConfig(vocab_size=530)])
def test_of_one_long_line_the_end_is_held_out_whatever_the_corpus(tmp_path, monkeypatch, tokenizer, part_bytes):
    monkeypatch.setattr(files, "PART_BYTES", part_bytes)
    found = {prepare(config, tokenizer, cache_dir=tmp_path).identity for config in one_text(tmp_path)}
    corpus = prepare(TextConfig(path=str(tmp_path / "a.txt")), tokenizer, cache_dir=tmp_path)
    train, validation = documents(corpus.train), documents(corpus.validation)
    assert train + validation == [ONE[: len(train[0])], ONE[len(train[0]) :]]
    assert 0.05 <= len(validation[0]) / len(ONE) <= 0.1
    # Parts may end elsewhere than lines, and a cut at the best place of a part may be another one.
    assert part_bytes == 100 or found == {corpus.identity}


BLANKS = [b"", b"\n", b" \n\t\n\n", "\ufeff".encode()]


@pytest.mark.parametrize("tokenizer", [BYTES, SentencePieceConfig(vocab_size=530)])
@pytest.mark.parametrize("documents", ["auto", "file"])
@pytest.mark.parametrize("blank", BLANKS)
def test_a_side_without_text_is_refused_by_its_field(tmp_path, blank, documents, tokenizer):
    (tmp_path / "text.txt").write_text("some text\n\nand some more", encoding="utf-8")
    (tmp_path / "blank.txt").write_bytes(blank)
    for path, validation_path, message in (
        ("text.txt", "blank.txt", r"data\.validation_path must hold documents with text; it is empty"),
        ("blank.txt", "text.txt", r"data\.path must hold (documents with text beside|text to train)"),
        ("blank.txt", None, r"data\.path must hold (documents with text; the corpus is empty|text to train)"),
    ):
        config = TextConfig(
            path=str(tmp_path / path),
            validation_path=validation_path and str(tmp_path / validation_path),
            documents=documents,
        )
        with pytest.raises(UserError, match=f"^{message}") as raised:
            prepare(config, tokenizer, cache_dir=tmp_path / "cache")
        assert "\n" not in str(raised.value)


def test_a_blank_document_is_not_what_is_held_out(tmp_path):
    for texts in (["\n", "text", "more text"], [" ", "x" * 99], ["x" * 99, " ", " "]):
        corpus = prepare(stories(tmp_path, texts), BYTES)
        assert "".join(documents(corpus.validation)).strip()
        assert "".join(documents(corpus.train)).strip()
    for name, text in {"a": " \n", "b": "b", "c": "c", "d": "\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    corpus = prepare(TextConfig(path=str(tmp_path / "*.txt")), BYTES, cache_dir=tmp_path)
    assert len("".join(documents(corpus.validation)).strip()) == 1


def test_the_fraction_that_a_message_asks_for_helps(tmp_path):
    texts = [f"text {number}" for number in range(9)]
    with pytest.raises(UserError, match=r"validation_fraction must leave text to train on; of 9 .* a smaller one than"):
        prepare(stories(tmp_path, texts, validation_fraction=0.9999), BYTES)
    prepare(stories(tmp_path, texts, validation_fraction=0.5), BYTES)


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    tokenizer = load_tokenizer(word_piece_checkpoint(tmp_path / "bert"))
    with pytest.raises(UserError, match="tokenizer must give every text back exactly"):
        prepare(stories(tmp_path / "in", ["a", "b"]), tokenizer)


def test_a_tokenizer_that_loses_part_of_a_document_is_refused_by_the_document(tmp_path):
    class Losing(BytesTokenizer):
        def encode_batch(self, texts, *, num_threads):
            return [np.array(list(text.replace("é", "e").encode()), dtype=np.int32) for text in texts]

    config = stories(tmp_path, ["plain", "café", "end"])
    with pytest.raises(UserError, match=r"of the 5 bytes of .*stories\.jsonl:2 its tokens stand for 4"):
        prepare(config, Losing())
    assert entries(config, "tokens") == []


@pytest.mark.parametrize("section", ["tokens", "tokenizers"])
@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "same size"])
def test_every_damaged_file_of_the_cache_is_made_again(tmp_path, caplog, section, damage):
    config, tokenizer = stories(tmp_path, ["a b", "c d", "e f"]), SentencePieceConfig(vocab_size=530)
    first = prepare(config, tokenizer)
    (folder,) = (tmp_path / "cache" / section).iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == {"tokens": 10, "tokenizers": 3}[section]
    for name, content in before.items():
        path = folder / name
        path.unlink()
        if damage != "missing":
            path.write_bytes({"empty": b"", "cut": content[:-1], "same size": b"\xff" * len(content)}[damage])
        caplog.clear()
        again = prepare(config, tokenizer)
        assert [str(folder) in record.getMessage() for record in caplog.records] == [True]
        assert (again.identity, again.fingerprint) == (first.identity, first.fingerprint)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


PREPARE = """
import sys, zoo
from pathlib import Path
from zoo.data import prepare
from zoo.data.corpora import TextConfig
from zoo.data.tokenizers import BytesConfig
print(prepare(TextConfig(path=sys.argv[1]), BytesConfig(), cache_dir=Path(sys.argv[2])).fingerprint)
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(tmp_path):
    text = "".join(f"{number}: the same line over and over\n" for number in range(400_000))
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name + text, encoding="utf-8")
    cache = tmp_path / "cache"
    with subprocess.Popen([sys.executable, "-c", PREPARE, str(tmp_path / "?.txt"), str(cache)]) as process:
        while not any(path.stat().st_size for path in cache.glob("tokens/*.partial/train.tokens")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        process.kill()
    (left,) = (cache / "tokens").iterdir()
    assert left.suffix == ".partial"
    corpus = prepare(TextConfig(path=str(tmp_path / "?.txt")), BYTES, cache_dir=cache)
    (folder,) = (cache / "tokens").iterdir()
    assert folder.suffix == ""
    assert len(corpus.train.tokens_T) + len(corpus.validation.tokens_T) == 3 * (len(text) + len("a.txt") + 1) + 2


def test_every_process_makes_the_same_tokens(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"{number}\n{SOURCE}", encoding="utf-8")
    script = PREPARE.replace("BytesConfig()", "SentencePieceConfig(vocab_size=530)")
    script = script.replace("BytesConfig", "SentencePieceConfig")
    contents = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, str(tmp_path / "?.txt"), str(tmp_path / seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, stdout=subprocess.DEVNULL)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / seed).glob("tokens/*/*")})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 10


def test_a_checkpoints_tokenizer_can_be_used_by_path(tmp_path):
    corpus: TokenCorpus = prepare(stories(tmp_path, ["a b", "c d"]), SentencePieceConfig(vocab_size=530))
    (tmp_path / "checkpoint").mkdir()
    corpus.tokenizer.save(tmp_path / "checkpoint")
    config = tokenizer_config_from_mapping({"kind": "pretrained", "path": str(tmp_path / "checkpoint")})
    assert prepare(stories(tmp_path, ["a b", "c d"]), config).fingerprint == corpus.fingerprint
