"""Speculative decoding: the text is the large model's own, whatever the small one guesses."""

import types

import pytest

from tests.zoo.generation.models import random_text, tiny_model
from tests.zoo.generation.test_conversation import one_each
from tests.zoo.generation.test_prompt_cache import NAMED
from zoo.attention.catalog import variant
from zoo.config import UserError
from zoo.generation import Context, DraftedContext, GenerationConfig, stream_text

PROMPT = random_text(11)
FORGETTING = [name for name in one_each() if all(each.capabilities.trimmable for each in variant(name).variants())]


def drafted(model, draft, *, num_draft_tokens=3, context=None, tokenizer=NAMED):
    context = Context(model) if context is None else context
    return DraftedContext(context, draft, tokenizers=(NAMED, tokenizer), num_draft_tokens=num_draft_tokens)


def write(model, context, prompt=PROMPT, **choices):
    config = GenerationConfig(**{"max_tokens": 40, "stop_at_eos": False, "prefill_step_size": 4, **choices})
    *_, last = stream_text(model, NAMED, prompt, config, context=context)
    return last.result.text, last.result.finish_reason, last.result.generated_tokens


@pytest.mark.parametrize("name", FORGETTING)
def test_greedy_text_is_the_large_models_own(name):
    model, draft = tiny_model(name), tiny_model("mha", num_layers=1)
    plain = write(model, Context(model))
    for count in (1, 4):
        assert write(model, drafted(model, draft, num_draft_tokens=count)) == plain
    # One that knows all answers is always right.
    context = drafted(model, model)
    assert write(model, context) == plain
    assert context.num_accepted == context.num_guessed > 0


@pytest.mark.parametrize(
    "choices",
    [
        {"temperature": 0.9, "seed": 5},
        {"temperature": 1.3, "top_p": 0.8, "top_k": 9, "min_p": 0.01, "repetition_penalty": 1.3},
        {"repetition_penalty": 1.5, "repetition_context_size": 7},
        {"temperature": 0.7, "stop_at_eos": True},
        {"stop": ("a",)},
        {"max_tokens": 1},
        {"max_tokens": 2},
    ],
)
def test_every_draw_is_the_one_that_the_large_model_makes_alone(choices):
    model, draft = tiny_model("mha"), tiny_model("mha", num_layers=1)
    assert write(model, drafted(model, draft), **choices) == write(model, Context(model), **choices)


def test_a_draft_of_another_size_and_shorter_positions_guesses_as_long_as_it_can():
    # A vocabulary that was padded has tokens without a text.
    model = tiny_model("mha", vocab_size=31)
    draft = tiny_model("softcap", family="gpt", num_layers=1, vocab_size=29, max_seq_len=24)
    context = drafted(model, draft)
    for choices in ({}, {"temperature": 1.0}):
        plain = write(model, Context(model), **choices)
        context = drafted(model, draft)
        assert write(model, context, **choices) == plain
        assert 0 < context.num_guessed < 40
    assert write(model, drafted(model, draft), random_text(30)) == write(model, Context(model), random_text(30))


def test_a_text_goes_on_and_returns_with_its_draft():
    model, draft = tiny_model("mha"), tiny_model("mha", num_layers=1)
    read = NAMED.encode(random_text(9, seed=3))
    own = Context(model)
    own.read(read, step_size=5)
    context = drafted(model, draft, context=own)
    first = write(model, context)
    plain = Context(model)
    plain.read(read, step_size=5)
    assert first == write(model, plain)
    for each in (context, plain):
        each.return_to(14)
        assert each.tokens == [*read, *NAMED.encode(PROMPT)][:14]
    assert write(model, context, "again") == write(model, plain, "again")
    assert context.nbytes > plain.nbytes


@pytest.mark.parametrize("name", sorted(set(one_each()) - set(FORGETTING)))
def test_what_cannot_forget_is_refused_by_name(name):
    model, draft = tiny_model(name), tiny_model("mha")
    with pytest.raises(UserError, match=rf"^checkpoint must have .*attention '{name}' keeps a \w+Cache, which cannot"):
        drafted(model, draft)
    with pytest.raises(UserError, match=rf"^draft_checkpoint must have .*attention '{name}' keeps a \w+Cache"):
        drafted(draft, model)


def test_another_tokenizer_is_refused():
    model = tiny_model("mha")
    with pytest.raises(UserError, match="must have the tokenizer of checkpoint"):
        drafted(model, model, tokenizer=types.SimpleNamespace(fingerprint="another"))
