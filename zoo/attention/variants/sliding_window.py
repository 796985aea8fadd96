"""Sliding-window attention: each query sees the keys less than `window_size` away.

    allowed(i, j) = |i - j| < window_size

Beltagy et al., "Longformer", https://arxiv.org/abs/2004.05150; causal as in Jiang et al., "Mistral 7B",
https://arxiv.org/abs/2310.06825. The window counts the query itself: a causal query sees itself and the
`window_size - 1` keys before it, a bidirectional one also the `window_size - 1` keys after it.
"""

import dataclasses
import functools
from typing import Any

from zoo.attention.pattern import CacheBound, PatternConfig, pattern_mechanism
from zoo.config import MOST, require_within
from zoo.ops import band, gathered


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlidingWindowConfig(PatternConfig):
    """Parameters of sliding-window attention.

    Attributes:
        window_size: Keys that a causal query sees, itself included.
    """

    window_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "window_size")


def allowed(query_index: Any, key_index: Any, config: SlidingWindowConfig) -> Any:
    """Keys less than a window away, on either side."""
    return abs(query_index - key_index) < config.window_size


MECHANISM = pattern_mechanism(
    name="sliding_window",
    allowed=allowed,
    config=SlidingWindowConfig,
    implementations={
        "chunked": lambda config: functools.partial(band.chunked, window_size=config.window_size),
        "gather_slices": lambda config: functools.partial(gathered.gather_slices, window_size=config.window_size),
        "gather_index": lambda config: functools.partial(gathered.gather_index, window_size=config.window_size),
    },
    cache_bound=lambda config: CacheBound(max_size=config.window_size),
)
