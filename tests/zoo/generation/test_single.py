"""One prompt: where its text ends, what is reported, and which draws the seed decides."""

import collections
import itertools

import mlx.core as mx
import pytest

from tests.zoo.generation.scripted import PieceTokenizer, ScriptedModel, chain
from zoo.config import UserError
from zoo.generation import GenerationConfig, generate_text, stream_text

TOKENIZER = PieceTokenizer("one", " two", " th", "ree", " four", "!", "\n")
TEXT = "one two three four!\n"


def generate(prompt="one", **choices):
    return generate_text(chain(TOKENIZER, TEXT), TOKENIZER, prompt, GenerationConfig(**choices))


def test_text_ends_with_its_document_and_without_the_token_that_ends_it():
    result = generate()
    assert (result.text, result.finish_reason) == (" two three four!\n", "eos")
    assert (result.prompt_tokens, result.generated_tokens) == (1, 7)


@pytest.mark.parametrize(("max_tokens", "text"), [(1, " two"), (2, " two th"), (6, " two three four!\n")])
def test_text_ends_after_max_tokens(max_tokens, text):
    result = generate(max_tokens=max_tokens)
    assert (result.text, result.finish_reason, result.generated_tokens) == (text, "max_tokens", max_tokens)


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        ((" three",), " two", 4),
        (("o th",), " tw", 3),
        (("reef", "e f"), " two thre", 5),
        (("!\n",), " two three four", 7),
        (("\n",), " two three four!", 7),
        ((" two",), "", 2),
    ],
)
def test_text_ends_before_a_stop_string_that_spans_tokens(stop, text, tokens):
    result = generate(stop=stop)
    assert (result.text, result.finish_reason, result.generated_tokens) == (text, "stop", tokens)


def test_a_stop_string_that_never_completes_holds_no_text_back_at_the_end():
    assert generate(stop=("!\n\n", "four?")).text == " two three four!\n"
    assert generate(stop=(" three",), max_tokens=2).text == " two th"


def test_a_stop_string_that_only_the_last_flush_completes_still_ends_the_text():
    result = generate(stop=("\n",), max_tokens=6)
    assert (result.text, result.finish_reason) == (" two three four!", "stop")


def test_pieces_join_to_the_text_and_only_the_last_carries_the_result():
    pieces = list(stream_text(chain(TOKENIZER, TEXT), TOKENIZER, "one", GenerationConfig(stop=("!",))))
    assert [piece.text for piece in pieces] == ["", " two", " th", "ree", " four", ""]
    assert [piece.result is not None for piece in pieces] == [False] * 5 + [True]
    assert "".join(piece.text for piece in pieces) == " two three four"


def test_text_can_run_past_the_end_of_a_document():
    tokenizer = PieceTokenizer("a", "b")
    model = ScriptedModel([1, 2, 0])
    result = generate_text(model, tokenizer, "a", GenerationConfig(stop_at_eos=False, max_tokens=5))
    assert (result.text, result.finish_reason) == ("bab", "max_tokens")


def test_an_empty_prompt_begins_a_document():
    tokenizer = PieceTokenizer("a", "b")
    result = generate_text(ScriptedModel([1, 2, 0]), tokenizer, "", GenerationConfig())
    assert (result.text, result.prompt_tokens) == ("ab", 1)


@pytest.mark.parametrize("max_tokens", [4, 50, None])
def test_text_ends_where_learned_positions_end(max_tokens):
    tokenizer = PieceTokenizer("a", "b")
    model = ScriptedModel([1, 2, 1], position_limit=7)
    result = generate_text(model, tokenizer, "aba", GenerationConfig(max_tokens=max_tokens))
    assert result.text == "baba"
    assert result.finish_reason == ("max_tokens" if max_tokens == 4 else "max_seq_len")


@pytest.mark.parametrize("length", [7, 12])
def test_a_prompt_without_room_for_a_token_is_refused(length):
    tokenizer = PieceTokenizer("a")
    with pytest.raises(UserError, match=f"fewer tokens than model.max_seq_len = 7; got {length}"):
        generate_text(ScriptedModel([1, 1], position_limit=7), tokenizer, "a" * length, GenerationConfig())


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(UserError, match="belongs to another model"):
        generate_text(ScriptedModel([0, 0]), PieceTokenizer("a", "b"), "b", GenerationConfig())


@pytest.mark.parametrize("token", [2, 10**8, 10**30, -1])
def test_a_token_that_the_model_does_not_know_is_named(token):
    with pytest.raises(UserError, match=f"tokens from 0 to 1, as model.vocab_size says; got {token};"):
        generate_text(ScriptedModel([0, 0]), PieceTokenizer("a"), [1, token, 0], GenerationConfig())


@pytest.mark.parametrize("choices", [{}, {"temperature": 0.8}, {"temperature": 0.8, "repetition_penalty": 1.5}])
def test_scores_that_are_no_numbers_are_a_mistake_and_not_token_zero(choices):
    model = ScriptedModel([1, 2, 0], margin=float("nan"))
    with pytest.raises(UserError, match="must give scores that are numbers; got NaN for token 1"):
        generate_text(model, PieceTokenizer("a", "b"), "a", GenerationConfig(max_tokens=4, **choices))


def after(calls):
    """Says true from the given call on."""
    counted = itertools.count(1)
    return lambda: next(counted) >= calls


def test_an_interruption_ends_the_text_with_a_result():
    tokenizer = PieceTokenizer("a", "b")
    config = GenerationConfig(max_tokens=None, stop=("baa",))
    pieces = list(stream_text(ScriptedModel([1, 2, 1]), tokenizer, "a", config, interrupted=after(4)))
    result = pieces[-1].result
    assert "".join(piece.text for piece in pieces) == result.text == "bab"
    assert (result.finish_reason, result.generated_tokens) == ("interrupted", 3)


def test_an_interruption_while_the_prompt_is_read_leaves_an_empty_text():
    config = GenerationConfig(max_tokens=None, prefill_step_size=2)
    model = ScriptedModel([1, 2, 1])
    (piece,) = stream_text(model, PieceTokenizer("a", "b"), "ababababab", config, interrupted=after(3))
    assert len(model.calls) == 2
    result = piece.result
    assert (result.text, result.finish_reason, result.generated_tokens) == ("", "interrupted", 0)
    assert (result.prefill_tokens_per_second, result.decode_tokens_per_second) == (None, None)


def test_the_number_of_tokens_asked_for_costs_nothing_before_they_come():
    result = generate(max_tokens=10**12)
    assert (result.text, result.finish_reason) == (" two three four!\n", "eos")


def test_an_encoder_is_refused():
    model = ScriptedModel([1, 1])
    model.config.causal = False
    with pytest.raises(UserError, match="must hold a language model"):
        generate_text(model, PieceTokenizer("a"), "a", GenerationConfig())


@pytest.mark.parametrize(("step_size", "chunks"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (9, [3])])
def test_a_prompt_is_processed_in_chunks_its_last_token_by_itself(step_size, chunks):
    model = chain(TOKENIZER, TEXT)
    config = GenerationConfig(prefill_step_size=step_size, max_tokens=1)
    assert generate_text(model, TOKENIZER, "one two three", config).text == " four"
    # Two more calls: the last token of the prompt, and the step that is under way when the first token is read.
    assert model.calls == [(1, length) for length in [*chunks, 1, 1]]


def test_dropout_is_off_while_generating_and_back_afterwards():
    model = chain(TOKENIZER, TEXT)
    model.train()
    stream = stream_text(model, TOKENIZER, "one", GenerationConfig())
    next(stream)
    stream.close()
    assert set(model.modes) == {False}
    assert model.training


def test_speeds_are_tokens_over_seconds_and_none_where_nothing_was_measured():
    result = generate()
    assert result.prefill_tokens_per_second == pytest.approx(1 / result.prefill_seconds)
    assert result.decode_tokens_per_second == pytest.approx(6 / result.decode_seconds)
    assert generate(max_tokens=1).decode_tokens_per_second is None


def test_cache_bytes_are_those_of_the_cache():
    assert generate().cache_bytes == 4


FLAT = PieceTokenizer(*"abcdefghijklm")


def sample(prompt="a", *, padding=0, margin=0.0, max_tokens=40, **choices):
    table = [5] * FLAT.vocab_size
    model = ScriptedModel(table, padding=padding, margin=margin)
    config = GenerationConfig(max_tokens=max_tokens, stop_at_eos=False, **{"temperature": 1.0, **choices})
    return generate_text(model, FLAT, prompt, config).text


def test_equal_seeds_give_equal_text_and_others_other_text():
    assert sample(seed=3) == sample(seed=3)
    assert len({sample(seed=seed) for seed in range(5)}) == 5


def test_the_callers_random_numbers_neither_change_the_text_nor_are_changed():
    first = sample(seed=3)
    mx.random.seed(11)
    expected = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(11)
    assert sample(seed=3) == first
    assert mx.random.uniform(shape=(3,)).tolist() == expected


def test_greedy_text_ignores_the_seed():
    assert sample(temperature=0, margin=1.0, seed=1) == sample(temperature=0, margin=1.0, seed=2) == "e" * 40


def test_draws_follow_the_distribution():
    counts = collections.Counter(sample(max_tokens=2600))
    # Token 0 has no text; 13 of 14 draws are letters. Four standard deviations of a binomial count.
    assert set(counts) == set("abcdefghijklm")
    assert all(abs(count - 2600 / 14) < 4 * (2600 / 14) ** 0.5 for count in counts.values())


def test_a_high_temperature_flattens_and_a_low_one_sharpens():
    assert sample(margin=3.0, temperature=0.2).count("e") == 40
    assert sample(margin=3.0, temperature=30.0).count("e") < 20


def test_filters_leave_the_most_probable_token():
    for choice in ({"top_k": 1}, {"top_p": 0.05}, {"min_p": 0.9}):
        assert sample(margin=1.5, **choice) == "e" * 40
        assert sample(margin=1.5) != "e" * 40


def test_a_top_k_beyond_the_vocabulary_keeps_every_token():
    assert sample(top_k=FLAT.vocab_size) == sample(top_k=999) == sample()


def test_a_repetition_penalty_breaks_a_loop():
    assert sample(temperature=0, margin=1.0, max_tokens=9) == "e" * 9
    text = sample(temperature=0, margin=1.0, max_tokens=9, repetition_penalty=1e6, repetition_context_size=3)
    assert text[0] == "e"
    assert "ee" not in text


def test_padded_tokens_without_text_are_never_generated():
    assert len(sample(padding=500, max_tokens=60)) >= 50
