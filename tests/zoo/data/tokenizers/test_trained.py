"""SentencePiece trained on the corpus."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.zoo.data.listed import SOURCE, ListedCorpus
from zoo.config import UserError
from zoo.data.tokenizers import SentencePieceConfig, SentencePieceTokenizer
from zoo.data.tokenizers.trained import MODEL_FILE, _chunks, _sample

ROOT = Path(__file__).resolve().parents[4]
CONFIG = SentencePieceConfig(vocab_size=540)
TRAIN = """
import sys, zoo
from pathlib import Path
from tests.zoo.data.listed import SOURCE, ListedCorpus
from zoo.data.tokenizers import SentencePieceConfig
corpus = ListedCorpus([f"{SOURCE}{index}" for index in range(50)])
print(SentencePieceConfig(vocab_size=540).build(corpus, cache_dir=Path(sys.argv[1])).fingerprint)
"""


def test_training_gives_the_same_tokenizer_in_every_process(tmp_path):
    prints = [
        subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path / seed)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert prints[0] == prints[1] != ""


def test_what_was_learnt_is_kept_and_not_learnt_again(tmp_path):
    corpus = ListedCorpus([SOURCE] * 3)
    built = CONFIG.build(corpus, cache_dir=tmp_path)
    (model,) = tmp_path.glob(f"tokenizers/*/{MODEL_FILE}")
    other = CONFIG.build(ListedCorpus(["other text\n" * 9]), cache_dir=tmp_path)
    assert other.fingerprint != built.fingerprint
    assert len(list(tmp_path.glob(f"tokenizers/*/{MODEL_FILE}"))) == 2
    # With the other folder in its place, the kept file shows that it is what is read.
    (other_model,) = set(tmp_path.glob(f"tokenizers/*/{MODEL_FILE}")) - {model}
    shutil.rmtree(model.parent)
    shutil.copytree(other_model.parent, model.parent)
    assert CONFIG.build(corpus, cache_dir=tmp_path).fingerprint == other.fingerprint


def test_nothing_is_learnt_from_what_is_held_out():
    corpus = ListedCorpus(["train " * 9] * 3, ["secret " * 99])
    assert not any("secret" in chunk for chunk in _sample(corpus, 10_000))


def test_pieces_hold_indentation_and_several_words(tmp_path):
    tokenizer = SentencePieceConfig(vocab_size=600).build(
        ListedCorpus(["    def test(self):\n        return self.value\n" * 40]), cache_dir=tmp_path
    )
    assert len(tokenizer.encode("        ")) == 1
    assert max(len(piece.split(b" ")) for piece in tokenizer.token_bytes_V) > 2
    assert any(b"\n" in piece and len(piece) > 1 for piece in tokenizer.token_bytes_V)
    assert max(len(piece.decode()) for piece in tokenizer.token_bytes_V[300:]) <= 16


def test_a_vocabulary_that_the_corpus_cannot_fill_is_made_smaller(tmp_path):
    tokenizer = SentencePieceConfig(vocab_size=4096).build(ListedCorpus(["tiny corpus"]), cache_dir=tmp_path)
    assert 260 < tokenizer.vocab_size < 300
    assert tokenizer.decode(tokenizer.encode("größer")) == "größer"


def test_more_characters_than_the_vocabulary_has_room_for_are_spelt_in_bytes(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    tokenizer = SentencePieceConfig(vocab_size=530, character_coverage=1.0).build(
        ListedCorpus([text, "common " * 500]), cache_dir=tmp_path
    )
    assert tokenizer.vocab_size <= 530
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_sample_is_as_large_as_wanted_and_from_all_over_the_corpus():
    texts = [f"{index:05d} " * 300 for index in range(200)]
    sample = _sample(ListedCorpus(texts), 50_000)
    assert 50_000 <= sum(map(len, sample)) < 50_000 + 2048
    numbers = sorted(int(chunk[:5].strip() or 0) for chunk in sample if chunk[:5].isdigit())
    assert numbers[0] < 40
    assert numbers[-1] > 160


def test_chunks_end_at_line_ends_where_they_can_and_lose_nothing():
    lines = "".join(f"line {index} {'x' * (index % 90)}\n" for index in range(500))
    chunks = list(_chunks(lines + "y" * 5000 + "\n\nz"))
    assert "".join(chunks) == lines + "y" * 5000 + "\n\nz"
    assert max(map(len, chunks)) <= 2048
    assert sum(chunk.endswith("\n") for chunk in chunks) >= len(chunks) - 4


@pytest.mark.parametrize("train", [[], ["\0\0", "\u2581"]])
def test_a_corpus_without_text_to_learn_from_is_refused(tmp_path, train):
    with pytest.raises(UserError, match=r"data\.path must hold text to train a tokenizer on"):
        CONFIG.build(ListedCorpus(train), cache_dir=tmp_path)
    assert not list(tmp_path.glob("tokenizers/*"))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(UserError, match=r"tokenizer\.model must be a SentencePiece model"):
        SentencePieceTokenizer(b"no model")


@pytest.mark.parametrize("text", ["漢字仮名交じり文\n" * 40, "x" * 4000, "a\tb\n" * 90])
def test_a_corpus_without_a_space_gives_a_tokenizer_that_keeps_spaces(tmp_path, text):
    built = CONFIG.build(ListedCorpus([text]), cache_dir=tmp_path)
    for given in (" ", "a b", "  漢 字 \u2581 ", text):
        assert built.decode(built.encode(given)) == given
        assert built.encode_batch([given, "x"], num_threads=1)[0].tolist() == built.encode(given)
