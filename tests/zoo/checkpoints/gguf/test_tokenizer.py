"""A rebuilt tokenizer gives the tokens of the one that the file was made from."""

import functools
import io
import json

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tests.zoo.checkpoints.gguf.texts import TEXTS
from tests.zoo.checkpoints.gguf.written import write_gguf
from zoo.checkpoints.gguf.header import read_header
from zoo.checkpoints.gguf.tokenizer import read_tokenizer
from zoo.config import UserError
from zoo.data.tokenizers import load_tokenizer

CORPUS = [*TEXTS, "the cat and the hat in 1999 and 2024", "return the value of the function def class import"] * 4
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# The published tokenizers that a rule stands for: how they cut, whether they normalise, and put a token before a text.
RULES = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), None, False),
    "smollm": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        None,
        False,
    ),
    "llama-bpe": (split(LLAMA3), None, True),
    "qwen2": (split(QWEN2), normalizers.NFC(), False),
    "tekken": (split(TEKKEN), None, True),
}
SPECIAL, PLAIN = ["<s>", "</s>", "<|im_start|>"], ["<think>"]


@functools.cache
def byte_level(rule):
    """A small tokenizer as `rule` cuts, trained on the texts."""
    backend = Backend(models.BPE(ignore_merges=rule in ("llama-bpe", "tekken")))
    backend.pre_tokenizer, normalizer, _ = RULES[rule]
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken(each, normalized=False) for each in PLAIN])
    return backend


def metadata_of(backend, rule):
    description = json.loads(backend.to_str())
    pieces = backend.get_vocab()
    tokens = sorted(pieces, key=pieces.get)
    types = [3 if token in SPECIAL else 4 if token in PLAIN else 1 for token in tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in description["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def rebuilt(metadata, tmp_path):
    header = read_header(write_gguf(tmp_path / "a.gguf", metadata, {}))
    folder = tmp_path / "tokenizer"
    folder.mkdir(exist_ok=True)
    return read_tokenizer(header, folder)


@pytest.mark.parametrize("rule", RULES)
def test_byte_level_tokens_are_the_originals(rule, tmp_path):
    backend = byte_level(rule)
    tokenizer = rebuilt(metadata_of(backend, rule), tmp_path)
    begins = [0] if RULES[rule][2] else []
    for text in TEXTS:
        assert tokenizer.encode_prompt(text) == begins + backend.encode(text, add_special_tokens=False).ids, text
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not set(ids) & {0, 1, 2}
    assert tokenizer.eos_id == 1
    assert tokenizer.start_id == 0


@functools.cache
def sentence_piece(**settings):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        user_defined_symbols=PLAIN,
        minloglevel=2,
        **settings,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def metadata_of_pieces(processor):
    kinds = {"is_unknown": 2, "is_control": 3, "is_unused": 5, "is_byte": 6}
    ids = range(processor.get_piece_size())
    types = [next((kind for ask, kind in kinds.items() if getattr(processor, ask)(token)), 1) for token in ids]
    tokens = [processor.id_to_piece(token) for token in ids]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [float(processor.get_score(token)) for token in ids],
        "tokenizer.ggml.token_type": [4 if token in PLAIN else kind for token, kind in zip(tokens, types, strict=True)],
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
    }


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_are_the_originals(prefix, tmp_path):
    processor = sentence_piece(add_dummy_prefix=prefix)
    metadata = metadata_of_pieces(processor) | {"tokenizer.ggml.add_space_prefix": prefix}
    tokenizer = rebuilt(metadata, tmp_path)
    for text in TEXTS:
        if any(token in text for token in ("<s>", *PLAIN)):
            continue
        expected = processor.encode(text) if text else []
        assert tokenizer.encode_prompt(text) == [processor.bos_id(), *expected], text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.eos_id, tokenizer.start_id) == (processor.eos_id(), processor.bos_id())


def test_special_tokens_are_whole_in_a_prompt_and_a_space_follows_them(tmp_path):
    processor = sentence_piece()
    tokenizer = rebuilt(metadata_of_pieces(processor), tmp_path)
    found = tokenizer.encode_prompt("one</s>two")
    assert found == [1, *processor.encode("one"), 2, *processor.encode("two")]


def test_the_file_says_whether_tokens_stand_around_a_text(tmp_path):
    metadata = metadata_of(byte_level("gpt-2"), "gpt-2")
    around = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    tokenizer = rebuilt(metadata | around, tmp_path)
    assert tokenizer.wrapper.encode("a") == [0, *tokenizer.encode("a"), 1]
    # What ends a text says that nothing follows.
    assert tokenizer.encode_prompt("a") == [0, *tokenizer.encode("a")]
    tokenizer = rebuilt(metadata_of_pieces(sentence_piece()) | {"tokenizer.ggml.add_bos_token": False}, tmp_path)
    assert 1 not in tokenizer.encode_prompt("a")


def test_the_chat_template_comes_along_and_is_not_run(tmp_path):
    endless = "{% for a in range(999999999) %}{% for b in range(999999999) %}x{% endfor %}{% endfor %}"
    metadata = metadata_of(byte_level("gpt-2"), "gpt-2")
    assert rebuilt(metadata | {"tokenizer.chat_template": endless}, tmp_path).wrapper.chat_template == endless
    assert rebuilt(metadata, tmp_path).wrapper.chat_template is None


def test_it_is_saved_and_loaded_again(tmp_path):
    for metadata in (metadata_of(byte_level("smollm"), "smollm"), metadata_of_pieces(sentence_piece())):
        tokenizer = rebuilt(metadata, tmp_path)
        folder = tmp_path / metadata["tokenizer.ggml.model"]
        folder.mkdir()
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert again.fingerprint == tokenizer.fingerprint
        assert [again.encode_prompt(text) for text in TEXTS] == [tokenizer.encode_prompt(text) for text in TEXTS]


BROKEN = {
    "no tokens": ({"tokens": []}, r"tokens must list the vocabulary"),
    "tokens that are numbers": ({"tokens": [1, 2]}, r"tokens must be a list of str"),
    "a token twice": ({"tokens": ["a", "b", "a"]}, r"tokens must list each token once; got 'a' twice"),
    "another kind": ({"model": "t5"}, r"model must be gpt2 or llama; got 't5'"),
    "no kind": ({"model": None}, r"model must be a text; got nothing"),
    "an unknown rule": ({"pre": "gemma9"}, r"pre must be one of gpt-2, smollm.*; got 'gemma9'"),
    "no rule": ({"pre": None}, r"pre must be one of .*; got nothing"),
    "too few types": ({"token_type": [1, 1]}, r"token_type must have \d+ items, one for each token; got 2"),
    "an end beyond the vocabulary": ({"eos_token_id": 2**32 - 1}, r"eos_token_id must lie between 0 and"),
    "an end that is a text": ({"eos_token_id": "</s>"}, r"eos_token_id must be a whole number"),
    "no end": ({"eos_token_id": None}, r"must define a token that ends a text"),
    "a beginning that there is not": ({"bos_token_id": None, "add_bos_token": True}, r"bos_token_id must be given"),
    "a merge of three": ({"merges": ["a b c"]}, r"merges must be pairs of tokens; got 'a b c'"),
    "a merge of one": ({"merges": ["ab"]}, r"merges must be pairs of tokens"),
    "a merge of what is no token": ({"merges": ["漢 字"]}, r"must hold a tokenizer that can be read"),
    "a template that is a number": ({"template": 7}, r"chat_template must be a text; got 7"),
    "scores that are missing": ({"model": "llama"}, r"scores must have \d+ items, one for each token; got 0"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_contradicts_itself_is_one_line(fault, tmp_path):
    changes, message = BROKEN[fault]
    metadata = metadata_of(byte_level("gpt-2"), "gpt-2")
    for name, value in changes.items():
        key = "tokenizer.chat_template" if name == "template" else f"tokenizer.ggml.{name}"
        metadata.pop(key, None)
        if value is not None and value != []:
            metadata[key] = value
    with pytest.raises(UserError, match=message):
        rebuilt(metadata, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores, tokens: scores.__setitem__(-1, float("nan")), "scores must be finite"),
        (lambda scores, tokens: tokens.__setitem__(-1, "x" * 600), "at most 512 characters"),
    ],
)
def test_pieces_that_nobody_trained_are_refused(change, message, tmp_path):
    metadata = metadata_of_pieces(sentence_piece())
    change(metadata["tokenizer.ggml.scores"], metadata["tokenizer.ggml.tokens"])
    with pytest.raises(UserError, match=message):
        rebuilt(metadata, tmp_path)
