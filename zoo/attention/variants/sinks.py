"""Attention sinks: each query sees the first few tokens of the text and a sliding window.

    allowed(i, j) = j < num_sinks  or  i - j < window_size      over the keys j <= i

Xiao et al., "Efficient Streaming Language Models with Attention Sinks", https://arxiv.org/abs/2309.17453. Its cache
holds `num_sinks + window_size` tokens however long the text, so generation never ends for want of memory. We deviate:
StreamingLLM renumbers the tokens inside its cache 0, 1, 2, …; here every token keeps its true position, so that
decoding equals the full forward pass. Endless texts therefore need positions that reach as far: rotary, ALiBi or none;
learned positions end at the model's `max_seq_len`. The window counts the query itself.
"""

import dataclasses
import functools
from typing import Any

from zoo.attention.pattern import CacheBound, PatternConfig, pattern_mechanism
from zoo.config import MOST, require_within
from zoo.ops import band


@dataclasses.dataclass(frozen=True, kw_only=True)
class SinksConfig(PatternConfig):
    """Parameters of attention with sinks.

    Attributes:
        window_size: Keys that a query sees besides the sinks, itself included.
        num_sinks: First tokens of the text, which every later query sees.
    """

    window_size: int = 64
    num_sinks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "window_size")
        require_within(self, 0, MOST, "num_sinks")


def allowed(query_index: Any, key_index: Any, config: SinksConfig) -> Any:
    """The first keys, and keys less than a window back."""
    return (key_index < config.num_sinks) | (query_index - key_index < config.window_size)


MECHANISM = pattern_mechanism(
    name="sinks",
    allowed=allowed,
    config=SinksConfig,
    implementations={
        "chunked": lambda config: functools.partial(
            band.chunked, window_size=config.window_size, num_sinks=config.num_sinks
        )
    },
    cache_bound=lambda config: CacheBound(max_size=config.num_sinks + config.window_size, keep=config.num_sinks),
    bidirectional=False,
)
