"""Soft-capped scores: full attention whose scores bend towards a bound that they never reach.

    s_ij = cap * tanh(q_i·k_j / (sqrt(head_dim) * cap))

Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", https://arxiv.org/abs/2408.00118, section 2,
"Logit soft-capping": its soft_cap for attention is our `cap`, 50. Gemma scales queries by another number than
1 / sqrt(head_dim) in some sizes; here the scale is the usual one.
"""

import dataclasses
from typing import Any

import mlx.core as mx

from zoo.attention.pattern import PatternConfig
from zoo.config import require_within


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftcapConfig(PatternConfig):
    """Parameters of soft-capped attention.

    Attributes:
        cap: Bound of the scores' size, from 1e-3 to 1e6.
    """

    cap: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        # Far beyond both ends the quotient is no longer a float32 number.
        require_within(self, 1e-3, 1e6, "cap")


def score(scores: mx.array, query_index: Any, key_index: Any, config: SoftcapConfig) -> mx.array:
    """Nearly the score itself while it is small, and never beyond the cap."""
    return config.cap * mx.tanh(scores / config.cap)
