"""Draws belong to seed, row and step; preparing the sampler is none."""

from typing import Any

import mlx.core as mx
import pytest

from zoo.generation.config import GenerationConfig
from zoo.generation.sampling import NO_TOKEN, RowSampler, logits_processors


@pytest.mark.parametrize("choices", [{"temperature": 0.9}, {"temperature": 0.9, "top_k": 5}, {"temperature": 0.0}])
def test_warming_up_changes_no_draw_and_no_random_state(choices: dict[str, float]) -> None:
    config = GenerationConfig(max_tokens=3, seed=11, **choices)
    logprobs_1V = mx.log(mx.softmax(mx.arange(23) * 0.1)[None])
    cold, warm = (RowSampler(config, vocab_size=23) for _ in range(2))
    mx.random.seed(5)
    state: Any = mx.random.state
    before = state[0].tolist()
    warm.warm_up(23)
    assert state[0].tolist() == before
    assert [warm(logprobs_1V).item() for _ in range(9)] == [cold(logprobs_1V).item() for _ in range(9)]


def draws(logprobs: list[float], dtype: mx.Dtype = mx.float32, **choices: Any) -> list[int]:
    sampler = RowSampler(GenerationConfig(seed=3, **choices), vocab_size=len(logprobs))
    scores_1V = mx.array(logprobs, dtype=dtype)[None]
    return [sampler(scores_1V).item() for _ in range(40)]


# The best token is not the first one, which is what scores that are no numbers would give.
SCORES = [-3.0, -1.5, -0.5, -2.5, -4.0]
BEST = 2


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("temperature", [5e-324, 1e-39, 1e-6])
@pytest.mark.parametrize("more", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}])
def test_the_limit_of_small_temperatures_is_the_most_probable_token(temperature, dtype, more) -> None:
    assert set(draws(SCORES, dtype, temperature=temperature, **more)) == {BEST}


@pytest.mark.parametrize("temperature", [1e30, 1e39, 1e300])
def test_the_limit_of_large_temperatures_gives_all_tokens_that_the_filters_leave_equal_chances(temperature) -> None:
    assert set(draws(SCORES, temperature=temperature)) == set(range(5))
    assert set(draws(SCORES, temperature=temperature, top_k=2)) == {1, 2}


@pytest.mark.parametrize(
    "narrow", [{"top_p": 1e-30}, {"top_p": 1e-300}, {"top_p": 5e-324}, {"min_p": 1.0}, {"top_k": 1}]
)
def test_the_narrowest_filters_leave_the_most_probable_token(narrow) -> None:
    assert set(draws(SCORES, temperature=1.0, **narrow)) == {BEST}


@pytest.mark.parametrize("wide", [{"top_k": 5}, {"top_k": 10**30}, {"top_p": 1.0}, {"min_p": 5e-324}])
def test_the_widest_filters_leave_every_token(wide) -> None:
    assert set(draws(SCORES, temperature=3.0, **wide)) == set(range(5))


def test_tokens_of_no_probability_are_never_drawn() -> None:
    for temperature in (1e-40, 1.0, 1e300):
        assert set(draws([-mx.inf, -1.0, -mx.inf, -mx.inf], temperature=temperature)) == {1}


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 0.8, 1e300])
def test_scores_that_are_no_numbers_give_no_token(temperature) -> None:
    assert set(draws([mx.nan] * 4, temperature=temperature, top_p=0.9)) == {NO_TOKEN}


@pytest.mark.parametrize("penalty", [5e-324, 1e-39, 1e39, 1e300])
@pytest.mark.parametrize("context_size", [2, 10**12])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_extreme_penalties_give_scores_that_are_numbers(penalty, context_size, dtype) -> None:
    config = GenerationConfig(repetition_penalty=penalty, repetition_context_size=context_size)
    scores_1V = mx.array([[30.0, -30.0, 0.0, -1e4]], dtype=dtype)
    for processor in logits_processors(config, num_texts=4, vocab_size=4):
        scores_1V = processor(mx.array([0, 1, 2]), scores_1V)
    assert mx.isfinite(scores_1V).all().item()
