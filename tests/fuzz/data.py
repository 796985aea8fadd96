"""Corpora in every format, and the cache of their tokens."""

import functools
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.hostile import as_json, changed, damaged, value
from tests.fuzz.subject import Subject, require_refusal
from tests.zoo.data.listed import SOURCE
from zoo.data import CausalLoader, data_config_from_mapping, prepare
from zoo.data.tokenizers import BytesConfig, SentencePieceConfig

_RECORDS = [{"text": f"{SOURCE[:200]} {index}", "other": index} for index in range(12)]


class Corpus(Subject):
    """Files of texts and records, damaged; what is accepted is read through and trained on."""

    name = "corpus"
    share = 2.0

    def attempt(self, rng: random.Random, folder: Path) -> None:
        kind = rng.choice(("text", "jsonl", "parquet"))
        files = folder / "files"
        files.mkdir()
        for index in range(rng.choice((1, 2, 3))):
            content = _content(rng, kind, index)
            (files / f"part{index}.{kind}").write_bytes(damaged(rng, content) if rng.random() < 0.7 else content)
        strange = rng.random()
        if strange < 0.05:
            os.mkfifo(files / f"pipe.{kind}")
        elif strange < 0.1:
            (files / f"gone.{kind}").symlink_to(folder / "nothing")
        elif strange < 0.15:
            (files / "around").symlink_to(files)
        mapping: dict[str, Any] = {"corpus": kind, "path": str(files), "cache_dir": str(folder / "cache")}
        if rng.random() < 0.4:
            mapping[rng.choice(("path", "validation_path", "validation_fraction", "packing", "field", "documents"))] = (
                value(rng) if rng.random() < 0.7 else str(files / "part0.*")
            )
        corpus = prepare(data_config_from_mapping(mapping), BytesConfig())
        _train(corpus)


class Cache(Subject):
    """A damaged cache: what comes of it is what an empty one gives."""

    name = "cache"
    share = 2.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = folder / "files"
        self.files.mkdir()
        for index in range(4):
            (self.files / f"{index}.txt").write_text(SOURCE[20 * index :] * 2)
        self.tokenizers = (BytesConfig(), SentencePieceConfig(vocab_size=530))
        self.right = []
        for index, tokenizer in enumerate(self.tokenizers):
            right = self._prepare(folder / f"cache{index}", tokenizer)
            self.right.append([right.train.tokens_T.tolist(), right.validation.tokens_T.tolist()])

    def attempt(self, rng: random.Random, folder: Path) -> None:
        index = rng.randrange(len(self.tokenizers))
        cache = folder / "cache"
        shutil.copytree(self.folder / f"cache{index}", cache)
        file = rng.choice(sorted(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size))
        action = rng.randrange(5)
        if action == 0:
            file.unlink()
        elif action == 1:
            # Of the same size, and tokens that no vocabulary has.
            file.write_bytes(
                np.full(file.stat().st_size // 4 + 1, 2**31 - 1, np.int32).tobytes()[: file.stat().st_size]
            )
        elif action == 2 and file.suffix == ".json":
            file.write_bytes(as_json(rng, changed(rng, json.loads(file.read_bytes()))))
        elif action == 3:
            parent = file.parent
            shutil.rmtree(parent)
            parent.write_bytes(b"in the way") if rng.random() < 0.5 else parent.mkdir()
        else:
            file.write_bytes(damaged(rng, file.read_bytes()))
        found = self._prepare(cache, self.tokenizers[index])
        if [found.train.tokens_T.tolist(), found.validation.tokens_T.tolist()] != self.right[index]:
            require_refusal(f"a cache with a damaged {file.name}")
        _train(found)

    def _prepare(self, cache: Path, tokenizer: Any) -> Any:
        mapping = {"corpus": "text", "path": str(self.files), "cache_dir": str(cache)}
        return prepare(data_config_from_mapping(mapping), tokenizer)


def _content(rng: random.Random, kind: str, index: int) -> bytes:
    if kind == "text":
        return rng.choice((SOURCE, SOURCE[: 10 * index], "one line " * 400, "a\n\nb\n\nc\n")).encode()
    if kind == "jsonl":
        records = [changed(rng, each) if rng.random() < 0.2 else each for each in _RECORDS]
        return b"\n".join(as_json(rng, each) for each in records)
    return _parquet(index)


@functools.cache
def _parquet(index: int) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    columns: list[Any] = [
        pa.array([each["text"] for each in _RECORDS]),
        pa.array([each["text"] for each in _RECORDS], pa.large_string()),
        pa.array([None, *(each["text"] for each in _RECORDS[1:])]),
    ]
    pq.write_table(pa.table({"text": columns[index % 3], "other": list(range(len(_RECORDS)))}), stream)
    return stream.getvalue()


def _train(corpus: Any) -> None:
    loader = CausalLoader(corpus.train, batch_size=2, sequence_length=7, seed=1)
    for step in range(2):
        batch = loader.batch(step)
        if batch.inputs_BL.max() >= corpus.tokenizer.vocab_size or batch.inputs_BL.min() < 0:
            require_refusal("a token beyond the vocabulary")
    for _ in CausalLoader(corpus.validation, batch_size=2, sequence_length=7, seed=1).validation_batches(2):
        pass
