"""Learned sinks: each head may attend to nothing, by a virtual key with a learned logit and no value.

    y_i = sum_j e^(s_ij) v_j / (e^(sink) + sum_j e^(s_ij))        over all keys, or those less than `window_size` away

OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", https://arxiv.org/abs/2508.10925, whose layers take turns with and
without a window. The logits begin at 0, where the softmax is that of Miller, "Attention Is Off By One",
https://www.evanmiller.org/attention-is-off-by-one.html. The mechanism `sinks` is another thing: there the first tokens
of the text stay visible (StreamingLLM); here nothing is kept, and the sink is a number that each head learns.
"""

import dataclasses
from typing import Any

import mlx.core as mx

from zoo.attention.pattern import CacheBound, PatternConfig, pattern_mechanism
from zoo.config import MOST, require_within
from zoo.ops.scores import Learned, ScoreHook

# e^-10 is 5e-5 beside a key of score 0; much less, and no gradient would be left to learn by.
SETTLED_LOGIT = -10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedSinksConfig(PatternConfig):
    """Parameters of attention with learned sinks.

    Attributes:
        window_size: Keys that a causal query sees, itself included; None for all.
    """

    window_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "window_size")


def allowed(query_index: Any, key_index: Any, config: LearnedSinksConfig) -> Any:
    """All keys, or those less than a window away, on either side."""
    distance = abs(query_index - key_index)
    return distance >= 0 if config.window_size is None else distance < config.window_size


def learned(config: LearnedSinksConfig, num_heads: int) -> Learned:
    """A logit for each head."""
    return {"sinks": mx.zeros(num_heads)}


def sink_logit(config: LearnedSinksConfig, learned: Learned) -> mx.array:
    """The virtual key's."""
    return learned["sinks"]


def settle(layer: Any) -> str:
    """A trained model has no use for the virtual key yet."""
    layer.sinks = mx.full(layer.sinks.shape, SETTLED_LOGIT, dtype=layer.sinks.dtype)
    return f"with sinks of {SETTLED_LOGIT:g}, which get next to no weight"


MECHANISM = pattern_mechanism(
    name="learned_sinks",
    allowed=allowed,
    config=LearnedSinksConfig,
    hook=ScoreHook(sink_logit=sink_logit, learned=learned, settle=settle),
    cache_bound=lambda config: None if config.window_size is None else CacheBound(max_size=config.window_size),
)
