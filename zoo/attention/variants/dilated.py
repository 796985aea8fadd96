"""Dilated sliding-window attention: a window with gaps, which reaches further for the same number of keys.

    allowed(i, j) = |i - j| < window_size * dilation  and  (i - j) mod dilation = 0

Beltagy et al., "Longformer", https://arxiv.org/abs/2004.05150, section 3.1. `window_size` counts the keys that a
causal query sees, itself included. We deviate in that all heads share one dilation. This file is the pattern and
nothing else: training, decoding and tests come from it.
"""

import dataclasses
from typing import Any

from zoo.attention.pattern import PatternConfig
from zoo.config import MOST, require, require_within


@dataclasses.dataclass(frozen=True, kw_only=True)
class DilatedConfig(PatternConfig):
    """Parameters of dilated attention.

    Attributes:
        window_size: Keys that a causal query sees, itself included.
        dilation: Distance between them, in tokens.
    """

    window_size: int = 64
    dilation: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 1, MOST, "window_size", "dilation")
        reach = self.window_size * self.dilation
        require(reach <= MOST, "dilation", f"keep the reach window_size * dilation at most {MOST}", self.dilation)


def allowed(query_index: Any, key_index: Any, config: DilatedConfig) -> Any:
    """Every `dilation`-th key, less than `window_size` such steps away."""
    distance = abs(query_index - key_index)
    return (distance < config.window_size * config.dilation) & (distance % config.dilation == 0)
