"""Draws belong to seed, row and step; preparing the sampler is none."""

from typing import Any

import mlx.core as mx
import pytest

from zoo.generation.config import GenerationConfig
from zoo.generation.sampling import RowSampler


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
