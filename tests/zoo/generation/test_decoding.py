"""Generation means: full forward passes without a cache. Every cache, chunk and batch must give the same text."""

import functools
from typing import Any

import mlx.core as mx
import pytest

from tests.zoo.generation.models import TOKENIZER, argmax_text, decodable, random_text, tiny_model
from zoo.attention import pattern
from zoo.generation import GenerationConfig, generate_batch, generate_text
from zoo.layers import caches

# Longer than the shipped windows and blocks of 64 tokens, and no multiple of anything.
PROMPT = random_text(103)
NUM_TOKENS = 19
# Of a prompt: many, one that is a whole window or block and one that is not, and all of it at once.
CHUNKS = (13, 64, 500)
SMALL_WINDOW = {"name": "window", "mechanism": "sliding_window", "window_size": 5}
GREEDY: dict[str, Any] = {"max_tokens": NUM_TOKENS, "stop_at_eos": False}


class Letters:
    """The test's tokenizer with its one token without text taken out of the vocabulary of a model's scores."""

    def __init__(self, model):
        self.model = model
        self.config = model.config
        self.training = model.training

    def __call__(self, tokens_BL, *, cache):
        no_text = mx.arange(self.config.vocab_size) == TOKENIZER.eos_id
        return mx.where(no_text, -mx.inf, self.model(tokens_BL, cache=cache))

    def make_cache(self):
        return self.model.make_cache()

    def train(self, mode=True):
        self.model.train(mode)


def text_of(model, prompt=PROMPT, **choices):
    return generate_text(Letters(model), TOKENIZER, prompt, GenerationConfig(**GREEDY, **choices)).text


@functools.cache
def argmax_of_the_prompt(attention):
    return argmax_text(tiny_model(attention), PROMPT, NUM_TOKENS)


@pytest.mark.parametrize("attention", decodable())
def test_greedy_text_is_the_argmax_of_full_forward_passes_in_chunks_of_any_size(attention):
    model = tiny_model(attention)
    expected = argmax_of_the_prompt(attention)
    assert len(set(expected)) > 3, "a text of one letter would hide every fault"
    assert {size: text_of(model, prefill_step_size=size) for size in CHUNKS} == dict.fromkeys(CHUNKS, expected)


@pytest.mark.parametrize("attention", decodable())
def test_rows_of_a_batch_are_the_texts_of_their_prompts(attention):
    model = tiny_model(attention)
    others = ["a", "", random_text(131, seed=2)]
    config = GenerationConfig(**GREEDY, prefill_step_size=50)
    rows = generate_batch(Letters(model), TOKENIZER, [PROMPT, *others], config)
    expected = [argmax_of_the_prompt(attention), *(text_of(model, prompt) for prompt in others)]
    assert [row.text for row in rows] == expected


@pytest.mark.parametrize("attention", ["mha", SMALL_WINDOW, "linear"], ids=["mha", "window", "linear"])
def test_rows_that_end_leave_the_rest_of_the_batch_as_it_was(attention):
    model = tiny_model(attention)
    prompts = [random_text(length, seed=length) for length in (3, 19, 8, 40)]
    whole = [text_of(model, prompt) for prompt in prompts]
    # The first and third row end in the middle, each by the two letters that it writes there.
    stop = (whole[0][4:6], whole[2][9:11])
    config = GenerationConfig(**GREEDY, stop=stop)
    expected = [generate_text(Letters(model), TOKENIZER, prompt, config) for prompt in prompts]
    assert len({result.generated_tokens for result in expected}) >= 3
    rows = generate_batch(Letters(model), TOKENIZER, prompts, config)
    assert [row.text for row in rows] == [result.text for result in expected]


@pytest.mark.parametrize(
    ("family", "positions"), [("llama", "rotary"), ("llama", "alibi"), ("gpt", "none"), ("gpt", "learned")]
)
@pytest.mark.parametrize("attention", [SMALL_WINDOW, "mha"], ids=["window", "mha"])
def test_families_and_positions_decode_like_full_forward_passes_alone_and_in_a_batch(attention, family, positions):
    model = tiny_model(attention, family=family, positions=positions)
    prompts = ["ab", random_text(5, seed=1), random_text(19, seed=2)]
    expected = [argmax_text(model, prompt, NUM_TOKENS) for prompt in prompts]
    assert [text_of(model, prompt, prefill_step_size=4) for prompt in prompts] == expected
    rows = generate_batch(Letters(model), TOKENIZER, prompts, GenerationConfig(**GREEDY, prefill_step_size=4))
    assert [row.text for row in rows] == expected


def test_learned_positions_are_used_up_to_the_last_one_alone_and_in_a_batch():
    model = tiny_model("mha", family="gpt", max_seq_len=30)
    prompts = [random_text(27), random_text(29), random_text(12)]
    expected = [argmax_text(model, prompt, 30 - len(prompt)) for prompt in prompts]
    config = GenerationConfig(max_tokens=None)
    assert [generate_text(Letters(model), TOKENIZER, prompt, config).text for prompt in prompts] == expected
    assert [row.text for row in generate_batch(Letters(model), TOKENIZER, prompts, config)] == expected


@pytest.mark.parametrize("step_size", range(1, 12))
def test_a_prompt_far_longer_than_the_window_is_read_in_chunks_of_any_size(step_size):
    model = tiny_model(SMALL_WINDOW)
    assert text_of(model, PROMPT[:23], prefill_step_size=step_size) == argmax_text(model, PROMPT[:23], NUM_TOKENS)


def test_a_cache_that_misplaces_its_slots_by_one_is_caught(monkeypatch):
    model = tiny_model(SMALL_WINDOW)
    expected = argmax_text(model, "abc", NUM_TOKENS)
    assert text_of(model, "abc") == expected

    def off_by_one(cache, slots):
        return caches.slot_positions(cache, slots) - 1

    monkeypatch.setattr(pattern, "slot_positions", off_by_one)
    assert text_of(model, "abc") != expected


def test_a_batch_that_misplaces_its_rows_by_one_is_caught(monkeypatch):
    model = tiny_model("mha")
    prompts = ["abc", "defghij"]
    config = GenerationConfig(**GREEDY)
    expected = [text_of(model, prompt) for prompt in prompts]
    monkeypatch.setattr(caches.RaggedKVCache, "offset", property(lambda cache: mx.array(cache._counts) + 1))
    rows = generate_batch(Letters(model), TOKENIZER, prompts, config)
    assert all(row.text != text for row, text in zip(rows, expected, strict=True))


def test_cache_bytes_are_what_the_model_foretells():
    for attention in ("mha", SMALL_WINDOW):
        model = tiny_model(attention)
        # One token a step, as the model's account assumes; the last token generated is in the cache too.
        result = generate_text(Letters(model), TOKENIZER, "abc", GenerationConfig(**GREEDY, prefill_step_size=1))
        length = result.prompt_tokens + result.generated_tokens
        assert result.cache_bytes == model.cache_bytes(batch_size=1, length=length, dtype=mx.float32)
