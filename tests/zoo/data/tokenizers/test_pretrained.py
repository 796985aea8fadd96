"""Tokenizers of checkpoints."""

import json
import shutil

import pytest

from tests.zoo.data.listed import ListedCorpus
from tests.zoo.data.tokenizers.checkpoints import (
    byte_level_checkpoint,
    metaspace_checkpoint,
    word_piece_checkpoint,
)
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer, PretrainedConfig, PretrainedTokenizer, load_tokenizer


def test_a_documents_tokens_are_those_of_the_checkpoint_but_for_the_space_before_the_text(tmp_path):
    tokenizer = PretrainedTokenizer(metaspace_checkpoint(tmp_path))
    theirs = tokenizer.wrapper.encode("abc  def x", add_special_tokens=False)
    assert tokenizer.encode(" abc  def x") == theirs
    assert tokenizer.encode("abc  def x") != theirs


def test_a_prompt_is_encoded_as_the_checkpoint_does_it(tmp_path):
    tokenizer = PretrainedTokenizer(metaspace_checkpoint(tmp_path))
    assert tokenizer.encode_prompt("abc</s>") == tokenizer.wrapper.encode("abc</s>")
    assert tokenizer.encode_prompt("abc</s>")[0] == 1
    assert tokenizer.eos_id in tokenizer.encode_prompt("abc</s>")


@pytest.mark.parametrize(("start", "begins", "alone"), [("<s>", [1], 1), ("", [], 1), (None, [], 2)])
@pytest.mark.parametrize(("normalizes", "end"), [(True, ""), (False, ""), (True, "</s>")])
def test_a_model_from_elsewhere_begins_as_its_tokenizer_says(tmp_path, start, begins, alone, normalizes, end):
    folder = metaspace_checkpoint(tmp_path / "theirs", start=start, normalizes=normalizes, end=end)
    tokenizer = PretrainedTokenizer(folder)
    assert tokenizer.wrapper.encode("abc")[-1:] == [2] or not end
    (tmp_path / "ours").mkdir()
    tokenizer.save(tmp_path / "ours")
    for each in (tokenizer, load_tokenizer(tmp_path / "ours")):
        assert each.encode_prompt("abc") == [*begins, *each.wrapper.encode("abc", add_special_tokens=False)]
        assert each.encode_prompt("") == begins
        # A model that has read nothing reads this.
        assert each.start_id == alone


@pytest.mark.parametrize("start", ["<s>", "", None])
def test_a_model_that_is_trained_here_begins_after_the_end_of_a_document(tmp_path, start):
    folder = metaspace_checkpoint(tmp_path / "theirs", start=start)
    tokenizer = PretrainedConfig(path=str(folder)).build(ListedCorpus(["x"]), cache_dir=tmp_path)
    (tmp_path / "ours").mkdir()
    tokenizer.save(tmp_path / "ours")
    # Earlier versions saved no description.
    old = shutil.copytree(folder, tmp_path / "old")
    for each in (tokenizer, load_tokenizer(tmp_path / "ours"), load_tokenizer(old, trained_here=True)):
        assert each.encode_prompt("abc </s>") == [each.eos_id, *each.encode("abc </s>")]
        assert each.encode_masked("a<mask>b") == [each.eos_id, *each.encode("a"), each.mask_id, *each.encode("b")]
        assert each.start_id == each.eos_id
    again = PretrainedConfig(path=str(tmp_path / "ours")).build(ListedCorpus(["x"]), cache_dir=tmp_path)
    assert again.encode_prompt("abc") == tokenizer.encode_prompt("abc")


def test_text_that_normal_forms_would_change_keeps_its_form(tmp_path):
    tokenizer = PretrainedTokenizer(byte_level_checkpoint(tmp_path))
    assert tokenizer.encode("e\u0301") != tokenizer.encode("\u00e9")
    assert tokenizer.wrapper.encode("e\u0301") == tokenizer.wrapper.encode("\u00e9")


def test_special_tokens_come_from_the_checkpoint(tmp_path):
    byte_level = PretrainedTokenizer(byte_level_checkpoint(tmp_path / "a"))
    assert byte_level.eos_id == byte_level.pad_id == byte_level.wrapper.eos_token_id
    assert byte_level.mask_id is None
    word_piece = PretrainedTokenizer(word_piece_checkpoint(tmp_path / "b"))
    assert (word_piece.eos_id, word_piece.pad_id, word_piece.mask_id) == (3, 0, 4)


def test_a_tokenizer_that_loses_text_says_so_and_still_reads_and_writes(tmp_path):
    tokenizer = PretrainedTokenizer(word_piece_checkpoint(tmp_path))
    assert not tokenizer.lossless
    assert tokenizer.encode_prompt("The Areas.") == [2, 5, 6, 7, 8, 3]
    assert tokenizer.decode([2, 5, 6, 7, 8, 3]) == "the areas."


def test_two_texts_are_read_as_the_checkpoint_reads_them(tmp_path):
    tokenizer = PretrainedTokenizer(word_piece_checkpoint(tmp_path))
    assert tokenizer.encode_pair("the area.", "Areas") == ([2, 5, 6, 8, 3, 6, 7, 3], [0] * 5 + [1] * 3)
    assert tokenizer.encode_pair("the") == ([2, 5, 3], [0] * 3)
    eos = tokenizer.eos_id
    assert tokenizer.for_a_new_model().encode_pair("the", "area") == ([eos, 5, eos, 6, eos], [0, 0, 0, 1, 1])


def test_the_config_reads_folders_of_both_layouts(tmp_path):
    corpus = ListedCorpus(["x"])
    folder = byte_level_checkpoint(tmp_path / "a")
    assert isinstance(PretrainedConfig(path=str(folder)).build(corpus, cache_dir=tmp_path), PretrainedTokenizer)
    ours = tmp_path / "b"
    ours.mkdir()
    BytesTokenizer().save(ours)
    assert isinstance(PretrainedConfig(path=str(ours)).build(corpus, cache_dir=tmp_path), BytesTokenizer)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must hold a tokenizer; it has none of tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_truncated_file_is_refused_by_name(tmp_path, name):
    path = byte_level_checkpoint(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=rf"{name.replace('.', '[.]')} must be JSON") as raised:
        load_tokenizer(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_tokenizer_that_brings_its_own_code_is_refused(tmp_path):
    path = byte_level_checkpoint(tmp_path) / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}, "tokenizer_class": "OwnTokenizer"}
    path.write_text(json.dumps(own), encoding="utf-8")
    (tmp_path / "own.py").write_text("raise SystemExit('executed')\n", encoding="utf-8")
    with pytest.raises(UserError, match="must hold a tokenizer that can be read"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    path = byte_level_checkpoint(tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")
    with pytest.raises(UserError, match="must define a token that ends a text; it has neither eos nor sep"):
        load_tokenizer(tmp_path)


def test_a_path_has_to_be_given():
    with pytest.raises(UserError, match="path must be a checkpoint's folder or a name on the Hub; got None"):
        PretrainedConfig()
