"""The laws of all tokenizers: nothing is lost, every byte is counted once, and streaming gives the same text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo.data.listed import SOURCE, ListedCorpus
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint, metaspace_checkpoint
from zoo.config import UserError
from zoo.data.tokenizers import (
    KINDS,
    BytesTokenizer,
    PretrainedTokenizer,
    SentencePieceConfig,
    Tokenizer,
    load_tokenizer,
    tokenizer_config_from_mapping,
)
from zoo.data.tokenizers.interface import SPACE

# What tokenizers stumble over: their own signs for spaces, bytes and special tokens, and characters without width.
NASTY = [
    *["", " ", "  ", " " * 300, "x" * 300, "\u2581", " \u2581 ", "\u2581\u2581x"],
    *["\0", "a\0b", "\x01\x02\x7f", "\t\t", "\r\n\r", "\n", "\u2028\x85", "\ufeffx"],
    *["<s>", "</s>", "<unk>", "<pad>", "<mask>", "<0x41>", "<|endoftext|>", "<think>  x", "[MASK]"],
    *["e\u0301 \u00e9", "\u212b", "\u2047 \ufffd", "🙂\u200d🙂", "\U0010ffff", "漢字 かな"],
    "    def f():\n        return\n",
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.sampled_from([*NASTY, *SOURCE.split(" ")]), max_size=12).map("".join),
)

Make = Callable[[Path], Tokenizer]
MAKERS: dict[str, Make] = {
    "bytes": lambda _: BytesTokenizer(),
    "sentencepiece": lambda folder: SentencePieceConfig(vocab_size=530).build(
        ListedCorpus([SOURCE, *NASTY] * 3), cache_dir=folder
    ),
    "byte-level checkpoint": lambda folder: PretrainedTokenizer(byte_level_checkpoint(folder)),
    "metaspace checkpoint": lambda folder: PretrainedTokenizer(metaspace_checkpoint(folder)),
    "newer metaspace checkpoint": lambda folder: PretrainedTokenizer(metaspace_checkpoint(folder, normalizes=False)),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return MAKERS[request.param](tmp_path_factory.mktemp("tokenizer"))


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_every_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(tokenizer, text):
    assert tokenizer.token_byte_lengths()[tokenizer.encode(text)].sum() == len(text.encode())


@given(texts=st.lists(TEXTS, max_size=5))
@settings(max_examples=40, deadline=None)
def test_many_texts_at_once_become_the_same_tokens(tokenizer, texts):
    batch = tokenizer.encode_batch(texts, num_threads=2)
    assert [each.tolist() for each in batch] == [tokenizer.encode(text) for text in texts]
    assert {each.dtype for each in batch} <= {np.dtype(np.int32)}


@given(tokens=st.lists(st.integers(0, 300), max_size=30))
@settings(max_examples=150, deadline=None)
def test_streaming_gives_the_text_of_decoding_for_any_tokens(tokenizer, tokens):
    tokens = [token % tokenizer.vocab_size for token in tokens]
    detokenizer = tokenizer.streaming_detokenizer()
    segments = []
    for token in tokens:
        detokenizer.add_token(token)
        segments.append(detokenizer.last_segment)
    detokenizer.finalize()
    segments.append(detokenizer.last_segment)
    assert "".join(segments) == detokenizer.text == tokenizer.decode(tokens)
    assert detokenizer.tokens == tokens
    detokenizer.reset()
    assert (detokenizer.text, detokenizer.last_segment, detokenizer.tokens) == ("", "", [])


@pytest.mark.parametrize("text", NASTY)
def test_every_nasty_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_streaming_holds_back_half_a_character(tokenizer):
    detokenizer = tokenizer.streaming_detokenizer()
    *first, last = tokenizer.encode("\U000f0123")
    assert first, "a character this rare has no token of its own"
    for token in first:
        detokenizer.add_token(token)
        assert detokenizer.last_segment == ""
    detokenizer.add_token(last)
    assert detokenizer.last_segment == "\U000f0123"


def test_special_tokens_stand_for_no_bytes_and_no_text_becomes_one(tokenizer):
    lengths = tokenizer.token_byte_lengths()
    special = {tokenizer.eos_id, tokenizer.pad_id} | ({tokenizer.mask_id} - {None})
    assert lengths.dtype == np.int32
    assert lengths.shape == (tokenizer.vocab_size,)
    assert not lengths[list(special)].any()
    assert special.isdisjoint(token for text in NASTY for token in tokenizer.encode(text))
    assert tokenizer.decode([tokenizer.eos_id, *tokenizer.encode("x"), tokenizer.pad_id]) == "x"


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(SOURCE) == tokenizer.encode(SOURCE)
    assert loaded.encode_prompt(SOURCE) == tokenizer.encode_prompt(SOURCE)
    assert loaded.token_bytes_V == tokenizer.token_bytes_V
    assert (loaded.eos_id, loaded.pad_id, loaded.mask_id) == (tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id)


def test_a_lone_surrogate_is_refused(tokenizer):
    for encode in (tokenizer.encode, tokenizer.encode_prompt):
        with pytest.raises(UserError, match="text must be Unicode; got a lone surrogate at character 3"):
            encode("ab\ud800")


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_number_that_is_no_token_is_refused(tokenizer, token):
    with pytest.raises(UserError, match=rf"tokens must lie between 0 and {tokenizer.vocab_size - 1}; got {token}"):
        tokenizer.decode([0, token])


def test_an_unknown_kind_or_key_is_refused_with_the_choices():
    with pytest.raises(UserError, match=rf"^tokenizer: kind .*'bpe' \(choices: {', '.join(KINDS)}\)$"):
        tokenizer_config_from_mapping({"kind": "bpe"})
    with pytest.raises(UserError, match=r"^tokenizer: unknown key 'vocab'; did you mean 'vocab_size'\?"):
        tokenizer_config_from_mapping({"kind": "sentencepiece", "vocab": 3})
    with pytest.raises(UserError, match=r"^tokenizer: vocab_size must be at least 520; got 300$"):
        tokenizer_config_from_mapping({"kind": "sentencepiece", "vocab_size": 300})


def test_a_config_survives_its_mapping():
    config = SentencePieceConfig(vocab_size=777, character_coverage=0.9)
    assert tokenizer_config_from_mapping(config.as_mapping()) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "kind must be one that is saved so; got None"),
        ("[]", "must be a JSON object; got list"),
        ('{"kind"', "must be JSON"),
        ('{"kind": "pretrained"}', "trained_here must be true or false beside kind pretrained; got None"),
        (
            '{"kind": "pretrained", "trained_here": 1}',
            "trained_here must be true or false beside kind pretrained; got 1",
        ),
        ('{"kind": "sentencepiece"}', r"tokenizer\.model must exist; it is missing"),
    ],
)
def test_a_damaged_description_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "zoo_tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_other_tools_read_a_text_as_the_model_learnt_it(exported, text):
    tokenizer, theirs = exported
    # There a text that spells a special token is that token; and a checkpoint's pieces may write spaces as U+2581.
    same = not isinstance(tokenizer, PretrainedTokenizer) or SPACE not in text
    if same and not any(each in text for each in theirs.all_special_tokens):
        assert theirs.encode(text) == tokenizer.encode_prompt(text)
        assert theirs.decode(theirs.encode(text), skip_special_tokens=True) == text


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """A tokenizer of a model that was trained here, and what transformers makes of it."""
    folder = tmp_path_factory.mktemp("exported")
    ours = tokenizer.for_a_new_model()
    ours.export(folder)
    from transformers import AutoTokenizer

    return ours, AutoTokenizer.from_pretrained(folder)


def test_an_exported_tokenizer_is_the_same_here(exported, tmp_path):
    tokenizer, _ = exported
    tokenizer = tokenizer.with_chat_template("{{ messages[0].content }}")
    tokenizer.export(tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.eos_id, again.pad_id, again.mask_id) == (tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id)
    assert (again.token_byte_lengths() == tokenizer.token_byte_lengths()).all()
    assert again.encode_prompt(SOURCE) == tokenizer.encode_prompt(SOURCE)
    if not isinstance(tokenizer, PretrainedTokenizer):
        # What stands before every chat here, the template says there.
        said = again.chat_template().source.replace("{{ messages[0].content }}", "hi</s>")
        assert again.encode_marked(said) == tokenizer.encode_marked("hi</s>")
