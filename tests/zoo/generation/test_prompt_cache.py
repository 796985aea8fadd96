"""Prompt caches: what comes back is what was kept, and a stranger's file is one line."""

import json
import types

import mlx.core as mx
import pytest
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from tests.zoo.generation.models import TOKENIZER, random_text, tiny_model
from tests.zoo.generation.test_conversation import one_each
from zoo.config import UserError
from zoo.generation import Context, GenerationConfig, SavedContext, require_replaceable, save_context, stream_text

# Long enough to fill every window.
READ = TOKENIZER.encode(random_text(150))
MORE = TOKENIZER.encode("andsoon")


class Named(type(TOKENIZER)):
    """The pieces, with a name for their content."""

    fingerprint = "pieces"


NAMED = Named(*TOKENIZER.pieces[1:])


def write(model, context, ids, tokens=9):
    config = GenerationConfig(max_tokens=tokens, prefill_step_size=33)
    return "".join(piece.text for piece in stream_text(model, NAMED, ids, config, context=context))


# The last prompt fits into every window, and what is written after it does not.
@pytest.mark.parametrize(("name", "length"), [*((name, len(READ)) for name in one_each()), ("swa", 60)])
def test_a_text_goes_on_from_the_file_as_if_all_had_been_read(name, length, tmp_path):
    model, prompt = tiny_model(name), READ[:length]
    whole = write(model, Context(model), [*prompt, *MORE])
    context = Context(model, returns=True)
    # What is written after the prompt is forgotten before it is saved.
    write(model, context, prompt)
    context.return_to(length - 1)
    save_context(tmp_path / "kept", context, model=model, tokenizer=NAMED, pending=prompt[-1:])
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    saved = SavedContext(tmp_path / "kept", model=model, tokenizer=NAMED)
    assert (saved.context.tokens, saved.pending, saved.messages) == (prompt[:-1], prompt[-1:], None)
    assert write(model, saved.context, [*saved.pending, *MORE]) == whole


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A model, and the path of what it has read."""
    model = tiny_model("swa")
    context = Context(model)
    context.read(READ, step_size=40)
    path = tmp_path_factory.mktemp("kept") / "cache.safetensors"
    save_context(path, context, model=model, tokenizer=NAMED, messages=[{"role": "user", "content": "é"}])
    return model, path


def test_mlx_lm_reads_the_file_and_ours_reads_what_was_said(kept):
    model, path = kept
    theirs, said = load_prompt_cache(str(path), return_metadata=True)
    saved = SavedContext(path, model=model, tokenizer=NAMED)
    assert saved.messages == [{"role": "user", "content": "é"}]
    assert json.loads(said["tokens"]) == saved.context.tokens == READ
    for one, other in zip(theirs, saved.context.cache, strict=True):
        assert type(one) is type(other)
        assert one.offset == other.offset == len(READ)
        assert mx.array_equal(one.keys, other.keys)


def test_another_model_attention_or_tokenizer_is_refused_by_name(kept):
    model, path = kept
    mha = tiny_model("mha")
    with pytest.raises(UserError, match=r"must be of attention 'mha', as the model is; it is of 'swa'"):
        SavedContext(path, model=mha, tokenizer=NAMED)
    other = tiny_model("swa")
    other.norm.weight = other.norm.weight + 1e-3
    halved = tiny_model("swa")
    halved.set_dtype(mx.bfloat16)
    for another in (other, halved, tiny_model("swa", norm_eps=1e-3)):
        with pytest.raises(UserError, match="must be of this model, in this dtype; it is of another"):
            SavedContext(path, model=another, tokenizer=NAMED)
    with pytest.raises(UserError, match="must be of this model's tokenizer"):
        SavedContext(path, model=model, tokenizer=types.SimpleNamespace(fingerprint="others"))


def altered(path, target, *, metadata=lambda said: said, arrays=lambda found: found):
    found, said = mx.load(str(path), return_metadata=True)
    mx.save_safetensors(str(target), arrays(dict(found)), metadata(dict(said)))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": lambda said: {}}, "must be written by save_prompt_cache="),
        ({"metadata": lambda said: {**said, "0.format": "mlx"}}, "must be written by save_prompt_cache="),
        ({"metadata": lambda said: {**said, "0.attention": "{"}}, "attention must be JSON"),
        ({"metadata": lambda said: {**said, "0.tokens": "[1, 2"}}, "tokens must be JSON"),
        ({"metadata": lambda said: {**said, "0.tokens": "[]"}}, "at least one token"),
        ({"metadata": lambda said: {**said, "0.tokens": "[1, 2]"}}, "caches of its 2 tokens"),
        ({"metadata": lambda said: {**said, "0.tokens": "[1, 27]"}}, "tokens must be tokens of the model"),
        ({"metadata": lambda said: {**said, "0.pending": "[true]"}}, "pending must be tokens of the model"),
        ({"metadata": lambda said: {**said, "0.messages": "[3]"}}, "messages must be a list"),
        ({"metadata": lambda said: {**said, "1.1": "KVCache"}}, "must hold caches of"),
        ({"arrays": lambda found: {**found, "1.5": mx.array(9**9)}}, "must hold caches of its"),
        ({"arrays": lambda found: {**found, "1.3": mx.array(3)}}, "must hold caches of its"),
        ({"arrays": lambda found: {**found, "0.2": mx.array(2.5)}}, "0.2 must be int32"),
        ({"arrays": lambda found: {**found, "0.0": found["0.0"][..., :5]}}, "0.0 must have shape"),
        ({"arrays": lambda found: {**found, "0.0": found["0.0"][:, :, :4]}}, "must hold caches of its"),
        ({"arrays": lambda found: {**found, "0.1": found["0.1"] * mx.inf}}, "0.1 must hold finite numbers"),
        ({"arrays": lambda found: {**found, "2.0": mx.array(1)}}, "unexpected: '2.0'"),
    ],
)
def test_a_file_that_does_not_hold_what_it_says_is_one_line(change, words, kept, tmp_path):
    model, path = kept
    target = altered(path, tmp_path / "altered.safetensors", **change)
    with pytest.raises(UserError, match=f"^prompt_cache: .*{words}") as caught:
        SavedContext(target, model=model, tokenizer=NAMED)
    assert str(target) in str(caught.value)


def test_a_file_of_mlx_lm_and_one_of_no_format_are_one_line(kept, tmp_path):
    model, _ = kept
    theirs = tmp_path / "theirs.safetensors"
    save_prompt_cache(str(theirs), Context(model).cache, {"model": "x"})
    (tmp_path / "none").write_bytes(b"\x00" * 7)
    for name, words in (("theirs.safetensors", "which model"), ("none", "header"), ("missing", "it is missing")):
        with pytest.raises(UserError, match=f"^prompt_cache: .*{words}"):
            SavedContext(tmp_path / name, model=model, tokenizer=NAMED)


def test_nothing_but_a_prompt_cache_is_written_over(kept, tmp_path):
    model, path = kept
    require_replaceable(path)
    require_replaceable(tmp_path / "new")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(notes)
    for taken in (notes, tmp_path / "link", tmp_path, tmp_path / "no" / "where"):
        with pytest.raises(UserError, match=r"^save_prompt_cache"):
            require_replaceable(taken)
    with pytest.raises(UserError, match="at least 2 tokens"):
        save_context(tmp_path / "empty", Context(model), model=model, tokenizer=NAMED)
    assert not (tmp_path / "empty").exists()
