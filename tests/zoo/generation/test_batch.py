"""Several prompts in one batch: each row as if it were alone."""

import itertools

import pytest

from tests.zoo.generation.scripted import PieceTokenizer, ScriptedModel, chain
from zoo.config import UserError
from zoo.generation import GenerationConfig, generate_batch, generate_text, stream_batch

TOKENIZER = PieceTokenizer("one", " two", " three", " four", "six", " seven", "ten", "\n")
TEXTS = ("one two three four", "six seven\n", "ten")
PROMPTS = ["one", "six", "ten", "one two three", "", " four"]


def test_rows_end_by_themselves_and_the_batch_goes_on():
    model = chain(TOKENIZER, *TEXTS)
    results = generate_batch(model, TOKENIZER, PROMPTS[:4], GenerationConfig(stop=(" seven",)))
    assert [result.text for result in results] == [" two three four", "", "", " four"]
    assert [result.finish_reason for result in results] == ["eos", "stop", "eos", "eos"]
    assert [result.generated_tokens for result in results] == [4, 2, 1, 2]
    assert [result.prompt_tokens for result in results] == [1, 1, 1, 3]
    rows = [shape[0] for shape in model.calls if shape[0] > 1]
    assert rows == [4, 3], "rows that have ended leave the batch"


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 50])
@pytest.mark.parametrize("stop", [(), (" three",), ("o t", "n\n")])
def test_each_row_is_the_text_of_its_prompt_alone(max_tokens, stop):
    config = GenerationConfig(max_tokens=max_tokens, stop=stop)
    model = chain(TOKENIZER, *TEXTS)
    alone = [generate_text(model, TOKENIZER, prompt, config) for prompt in PROMPTS]
    together = generate_batch(model, TOKENIZER, PROMPTS, config)
    for one, row in zip(alone, together, strict=True):
        assert (one.text, one.finish_reason, one.prompt_tokens, one.generated_tokens) == (
            row.text,
            row.finish_reason,
            row.prompt_tokens,
            row.generated_tokens,
        )


def test_rows_stop_where_learned_positions_end_each_at_its_own_length():
    tokenizer = PieceTokenizer("a", "b")
    model = ScriptedModel([1, 2, 1], position_limit=6)
    results = generate_batch(model, tokenizer, ["a", "abab", "ab"], GenerationConfig(max_tokens=None))
    assert [result.text for result in results] == ["babab", "ab", "abab"]
    assert {result.finish_reason for result in results} == {"max_seq_len"}


def test_pieces_name_their_row_and_join_to_its_text():
    model = chain(TOKENIZER, *TEXTS)
    texts = [""] * len(PROMPTS)
    results = {}
    for piece in stream_batch(model, TOKENIZER, PROMPTS, GenerationConfig()):
        assert piece.row not in results
        texts[piece.row] += piece.text
        if piece.result is not None:
            results[piece.row] = piece.result
    assert texts == [results[row].text for row in range(len(PROMPTS))]


FLAT = PieceTokenizer(*"abcdefghijklm")


def sampled(prompts, **choices):
    model = ScriptedModel([3] * FLAT.vocab_size, margin=0.5)
    config = GenerationConfig(temperature=1.0, max_tokens=30, seed=5, **choices)
    return [result.text for result in generate_batch(model, FLAT, prompts, config)]


@pytest.mark.parametrize("choices", [{}, {"top_p": 0.9, "top_k": 9, "min_p": 0.01}, {"repetition_penalty": 1.3}])
def test_a_sampled_row_depends_on_seed_and_number_but_not_on_other_rows(choices):
    whole = sampled(["ab", "c", "ab", "dddd"], **choices)
    assert sampled(["ab", "c", "ab", "dddd"], **choices) == whole
    assert sampled(["ab", "k"], **choices)[0] == whole[0]
    assert sampled(["ab", "c", "ab"], **choices) == whole[:3]
    assert whole[0] != whole[2]
    config = GenerationConfig(temperature=1.0, max_tokens=30, seed=5, **choices)
    assert generate_text(ScriptedModel([3] * 14, margin=0.5), FLAT, "ab", config).text == whole[0]


def test_no_prompt_and_a_prompt_too_long_are_refused_before_any_work():
    model = ScriptedModel([1, 1], position_limit=4)
    with pytest.raises(UserError, match="prompts must hold at least one text"):
        generate_batch(model, PieceTokenizer("a"), [], GenerationConfig())
    with pytest.raises(UserError, match="got 5"):
        generate_batch(model, PieceTokenizer("a"), ["a", "aaaaa"], GenerationConfig())
    assert model.calls == []


def test_dropout_is_off_while_generating_and_back_afterwards():
    model = chain(TOKENIZER, *TEXTS)
    model.train()
    generate_batch(model, TOKENIZER, PROMPTS, GenerationConfig())
    assert set(model.modes) == {False}
    assert model.training


def test_scores_that_are_no_numbers_are_a_mistake_in_a_batch_too():
    tokenizer = PieceTokenizer("a", "b")
    for choices in ({}, {"temperature": 0.8}):
        with pytest.raises(UserError, match="must give scores that are numbers; got NaN for token 1"):
            generate_batch(ScriptedModel([1, 2, 0], margin=float("nan")), tokenizer, "ab", GenerationConfig(**choices))


@pytest.mark.parametrize(("calls", "text"), [(0, ""), (1, "b"), (2, "ba"), (3, "bab")])
def test_an_interruption_ends_every_row_with_a_result(calls, text):
    counted = itertools.count(0)
    config = GenerationConfig(max_tokens=None, prefill_step_size=1)
    model = ScriptedModel([1, 2, 1])
    stream = stream_batch(
        model, PieceTokenizer("a", "b"), ["a", "ba", "a"], config, interrupted=lambda: next(counted) >= calls
    )
    results = {piece.row: piece.result for piece in stream if piece.result is not None}
    assert {result.finish_reason for result in results.values()} == {"interrupted"}
    assert [results[row].text for row in range(3)] == [text] * 3
    assert {result.generated_tokens for result in results.values()} == {len(text)}
