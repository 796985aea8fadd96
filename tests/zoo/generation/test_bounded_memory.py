"""Mechanisms with a bounded cache write without end in constant memory."""

import gc
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest

from tests.zoo.generation.models import TOKENIZER, decodable, tiny_model
from zoo.attention.catalog import variant
from zoo.generation import GenerationConfig, stream_batch, stream_text

# Python objects of one moment and MLX's own bookkeeping; four bytes for each of four hundred tokens would be more.
SLACK_BYTES = 1_024


def bounded() -> list[str]:
    """One variant of each bounded mechanism; its implementations share the cache."""
    found: dict[Any, str] = {}
    for name in decodable():
        parts = variant(name).variants()
        if all(each.capabilities.bounded_cache for each in parts):
            found.setdefault(tuple(each.mechanism for each in parts), name)
    return list(found.values())


def memory_while_writing(
    attention: str, num_tokens: int, *, every: int, prompts: Sequence[str] = ("abc",)
) -> list[tuple[int, int]]:
    """(bytes of the caches, active bytes of MLX) after every so many tokens a row."""
    # One layer, and positions that never end.
    model = tiny_model(attention, num_layers=1, max_seq_len=100)
    caches: list[Any] = []

    class Watched:
        config, training = model.config, False

        def __call__(self, tokens_BL, *, cache):
            caches[:] = cache
            return model(tokens_BL, cache=cache)

        def make_cache(self):
            return model.make_cache()

        def train(self, mode=True):
            pass

    config = GenerationConfig(max_tokens=num_tokens, stop_at_eos=False)
    stream = (
        stream_text(Watched(), TOKENIZER, prompts[0], config)
        if len(prompts) == 1
        else stream_batch(Watched(), TOKENIZER, prompts, config)
    )
    measured = []
    for number, _ in enumerate(stream, start=1):
        if number % (every * len(prompts)) == 0:
            mx.synchronize()
            # What waits in cycles to be found is no token's.
            gc.collect()
            measured.append((sum(layer.nbytes for layer in caches), mx.get_active_memory()))
    assert len(measured) == num_tokens // every
    return measured


def assert_constant(measured: list[tuple[int, int]]) -> None:
    """By the first measurement every window and block is full, and MLX has its buffers."""
    cache_bytes, active_bytes = measured[0]
    for held, active in measured:
        assert held == cache_bytes
        assert abs(active - active_bytes) <= SLACK_BYTES


@pytest.mark.parametrize("attention", bounded())
def test_five_hundred_tokens_need_no_more_memory_than_one_hundred(attention):
    assert_constant(memory_while_writing(attention, 500, every=100))


def test_a_window_stays_bounded_in_a_batch():
    assert_constant(memory_while_writing("swa", 500, every=100, prompts=["abc", "d"]))


def test_the_measure_sees_a_cache_that_grows():
    with pytest.raises(AssertionError):
        assert_constant(memory_while_writing("mha", 200, every=100))
