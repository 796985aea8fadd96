"""Tokenizer files of strangers: whatever they hold, one line names what is wrong, and nothing of them is executed."""

import io
import json
import os
import random

import pytest
import sentencepiece

from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint, metaspace_checkpoint
from zoo.config import UserError
from zoo.data.tokenizers import SentencePieceTokenizer, load_tokenizer, pretrained

# A text and no object, whose name in a test would differ between processes.
MISSING = "<missing>"


def attempt(folder):
    """Loads and uses a tokenizer; returns the line by which it was refused, or None."""
    try:
        tokenizer = load_tokenizer(folder)
        tokenizer.decode(tokenizer.encode("def main(): é 漢 </s>\n"))
        tokenizer.encode_prompt("ab")
    except UserError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    assert str(folder) in message
    return message


def changed(file, path, value):
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value == MISSING:
        inner.pop(path[-1], None)
    else:
        inner[path[-1]] = value
    file.write_text(json.dumps(content))


def nested(depth, inner):
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


REFUSED = [
    (("model",), MISSING),
    (("model",), 3),
    (("model", "type"), "Magic"),
    (("model", "vocab"), []),
    (("model", "vocab"), {}),
    (("model", "vocab"), {"a": -1}),
    (("model", "vocab"), {"a": 2**32}),
    (("model", "vocab"), {"a": "1"}),
    (("model", "vocab", "a"), 10**8),
    (("model", "merges"), [["a"]]),
    (("model", "merges"), [["a", "nothing"]]),
    (("model", "merges"), 3),
    (("added_tokens",), 3),
    (("added_tokens",), [{}]),
    (("added_tokens", 0, "id"), "x"),
    (("added_tokens", 0, "content"), 3),
    (("normalizer",), 3),
    (("normalizer",), {"type": "Magic"}),
    (("normalizer",), {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    (("normalizer",), {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}),
    (("normalizer",), nested(100, {"type": "NFC"})),
    (("pre_tokenizer",), []),
    (("decoder",), {"type": 3}),
    (("post_processor",), {"type": "TemplateProcessing", "single": [], "pair": 3, "special_tokens": {}}),
    (("version",), 3),
]
# These change what nothing here reads, or what the readers mend; no crash is all that is asked.
HARMLESS = [
    (("added_tokens",), MISSING),
    (("added_tokens",), []),
    (("truncation",), {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 10**9}),
    (
        ("padding",),
        {"strategy": {"Fixed": 10**12}, "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
    ),
    (("model", "dropout"), 7.5),
    (("model", "unk_token"), "nothing"),
    (("more",), 1),
]


@pytest.mark.parametrize("make", [byte_level_checkpoint, metaspace_checkpoint])
@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda value: repr(value)[:30])
def test_a_tokenizer_that_is_none_is_refused(path, value, make, tmp_path):
    changed(make(tmp_path) / "tokenizer.json", path, value)
    assert attempt(tmp_path) is not None


@pytest.mark.parametrize("make", [byte_level_checkpoint, metaspace_checkpoint])
@pytest.mark.parametrize(("path", "value"), HARMLESS, ids=lambda value: repr(value)[:30])
def test_an_odd_tokenizer_works_or_is_refused(path, value, make, tmp_path):
    changed(make(tmp_path) / "tokenizer.json", path, value)
    attempt(tmp_path)


BOMB = "{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}"
CONFIGS = [
    ("model_max_length", "many"),
    ("model_max_length", -1),
    ("model_max_length", 1e400),
    ("tokenizer_class", 3),
    ("tokenizer_class", "os.system"),
    ("tokenizer_class", "../../Evil"),
    ("tokenizer_class", "LlamaTokenizer"),
    ("eos_token", 3),
    ("eos_token", None),
    ("eos_token", ["</s>"]),
    ("eos_token", {"content": 3}),
    ("eos_token", "no such token"),
    ("pad_token", []),
    ("mask_token", {"__type": "AddedToken"}),
    ("added_tokens_decoder", {"x": 1}),
    ("added_tokens_decoder", {"5": {"content": "a", "special": "yes"}}),
    ("added_tokens_decoder", {"100000000": {"content": "far", "special": True}}),
    ("additional_special_tokens", 3),
    ("extra_special_tokens", "x"),
    ("chat_template", BOMB),
    ("chat_template", 3),
    ("chat_template", {"a": 1}),
    ("chat_template", "{{ ''.__class__.__mro__ }}"),
    ("chat_template_type", "../../evil"),
    ("tool_parser_type", "os"),
    ("tool_parser_type", 3),
    ("tool_parser_type", "/tmp/evil"),
    ("auto_map", {"AutoTokenizer": ["evil.Evil", None]}),
    ("auto_map", 3),
    ("clean_up_tokenization_spaces", "perhaps"),
    ("padding_side", "up"),
    ("truncation_side", 7),
    ("name_or_path", "/etc/passwd"),
    ("tokenizer_file", "/etc/passwd"),
    ("vocab_file", "/dev/zero"),
    ("trust_remote_code", True),
    ("backend_tokenizer", 3),
    ("backend", "evil"),
    ("init_inputs", [1, 2]),
    ("self", 3),
]


@pytest.mark.parametrize(("key", "value"), CONFIGS, ids=lambda value: repr(value)[:30])
def test_a_hostile_description_is_refused_or_has_no_effect(key, value, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n")
    changed(metaspace_checkpoint(tmp_path) / "tokenizer_config.json", (key,), value)
    attempt(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a": 1, "a": 2}', "\udcff", '{"a": NaN}']
)
def test_a_file_that_is_no_json_object_is_refused_by_name(name, text, tmp_path):
    (byte_level_checkpoint(tmp_path) / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert str(tmp_path / name) in attempt(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "zoo_tokenizer.json", "vocab.json"])
def test_a_pipe_is_refused_and_never_waited_for(name, tmp_path):
    byte_level_checkpoint(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert str(tmp_path / name) in attempt(tmp_path)


@pytest.fixture(scope="module")
def model():
    """A model in the form in which they are trained here, of the smallest size."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 5),
        model_writer=written,
        model_type="bpe",
        vocab_size=290,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_whitespace=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        unk_id=0,
        eos_id=1,
        pad_id=2,
        bos_id=-1,
        control_symbols=["<mask>"],
        minloglevel=2,
    )
    return written.getvalue()


def test_a_mutilated_sentencepiece_model_works_or_is_refused(model):
    SentencePieceTokenizer(model)
    generator = random.Random(1)
    kept = refused = 0
    for _ in range(300):
        content = bytearray(model)
        match generator.randrange(4):
            case 0:
                del content[generator.randrange(len(content)) :]
            case 1:
                for _ in range(generator.choice((1, 3, 20))):
                    content[generator.randrange(len(content))] = generator.randrange(256)
            case 2:
                # The settings stand behind the pieces.
                content[generator.randrange(len(content) - 200, len(content))] = generator.randrange(256)
            case 3:
                start = generator.randrange(len(content))
                content[start : start + generator.randrange(60)] = generator.randbytes(generator.randrange(9))
        try:
            tokenizer = SentencePieceTokenizer(bytes(content))
        except UserError:
            refused += 1
            continue
        kept += 1
        text = "the fox \u2581 é\n"
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert kept
    assert refused > 100


@pytest.mark.parametrize(
    "change",
    [{"add_dummy_prefix": True}, {"byte_fallback": False}, {"normalization_rule_name": "nmt_nfkc"}, {"pad_id": -1}],
)
def test_a_sentencepiece_model_of_other_laws_is_refused(change):
    written = io.BytesIO()
    options = {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "pad_id": 2,
        "control_symbols": ["<mask>"],
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 5),
        model_writer=written,
        vocab_size=400,
        model_type="bpe",
        hard_vocab_limit=False,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        minloglevel=2,
        **{**options, **change},
    )
    with pytest.raises(UserError, match="must be a SentencePiece model as it is trained here"):
        SentencePieceTokenizer(written.getvalue())


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("tokenizer.json", ("model", "vocab", "a"), 2**31),
        ("tokenizer.json", ("added_tokens", 0, "id"), 2**31),
        ("tokenizer_config.json", ("added_tokens_decoder",), {str(2**31): {"content": "<x>"}}),
    ],
)
def test_a_number_that_no_table_could_hold_is_refused_before_a_native_reader_counts_up_to_it(
    tmp_path, monkeypatch, name, path, value
):
    folder = byte_level_checkpoint(tmp_path)
    changed(folder / name, path, value)
    monkeypatch.setattr(pretrained, "_read", lambda folder: pytest.fail("a native reader was asked"))
    assert "must have token numbers of at most 4194304; got 2147483648" in attempt(folder)
