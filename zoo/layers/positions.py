"""Token order inside an attention layer: rotary positions (through mlx-lm) and ALiBi's slopes.

Rotary: Su et al., "RoFormer", https://arxiv.org/abs/2104.09864. ALiBi: Press et al., "Train Short, Test Long",
https://arxiv.org/abs/2108.12409; for a number of heads that is no power of two the slopes are interleaved as in
the authors' code.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from zoo.config import MOST, FieldError, UserError, from_mapping, require, require_within

# Longer than any text there is; and what float32 tells from 0.
_FACTORS = (1e-6, 1e6)


def alibi_slopes(num_heads: int) -> mx.array:
    """ALiBi's geometric slopes, float32 [num_heads], steepest first for a power of two."""
    closest = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / closest) for head in range(closest)]
    finer = [2 ** (-8 * (head + 1) / (2 * closest)) for head in range(2 * closest)]
    return mx.array(slopes + finer[0::2][: num_heads - closest], dtype=mx.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorScaling:
    """Positions divided by a factor (`linear`), or a base that grows beyond the trained length (`dynamic`).

    Attributes:
        factor: How many times the trained length is wanted.
    """

    factor: float

    def __post_init__(self) -> None:
        require_within(self, *_FACTORS, "factor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling(FactorScaling):
    """Llama 3.1's: low frequencies are divided by the factor, high ones stay.

    Attributes:
        low_freq_factor: Waves longer than the trained length over this are scaled.
        high_freq_factor: Waves shorter than the trained length over this stay.
        original_max_position_embeddings: The trained length.
    """

    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, *_FACTORS, "low_freq_factor", "high_freq_factor")
        ordered = self.low_freq_factor < self.high_freq_factor
        require(ordered, "high_freq_factor", f"be above low_freq_factor {self.low_freq_factor}", self.high_freq_factor)
        require_within(self, 2, MOST, "original_max_position_embeddings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling(FactorScaling):
    """YaRN: Peng et al., https://arxiv.org/abs/2309.00071.

    Attributes:
        original_max_position_embeddings: The trained length.
        beta_fast: Turns over the trained length above which a frequency stays.
        beta_slow: Turns below which it is divided by the factor.
        mscale: Strength of the correction of the scores' temperature.
        mscale_all_dim: Of its denominator.
    """

    original_max_position_embeddings: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 2, MOST, "original_max_position_embeddings")
        require_within(self, *_FACTORS, "beta_fast", "beta_slow")
        require_within(self, 0.0, _FACTORS[1], "mscale", "mscale_all_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """LongRoPE: a factor for each frequency, Ding et al., https://arxiv.org/abs/2402.13753.

    Attributes:
        short_factor: For short texts, which mlx-lm reads no differently from long ones.
        long_factor: For each pair of channels.
        original_max_position_embeddings: The trained length.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        require_within(self, 2, MOST, "original_max_position_embeddings")
        for field in ("short_factor", "long_factor"):
            factors = getattr(self, field)
            within = all(_FACTORS[0] <= each <= _FACTORS[1] for each in factors)
            require(within, field, f"lie in [{_FACTORS[0]}, {_FACTORS[1]}]", factors)


# By the name that `type` or `rope_type` gives, as other libraries' checkpoints do.
ROPE_SCALINGS: dict[str, type[Any]] = {
    "linear": FactorScaling,
    "dynamic": FactorScaling,
    "llama3": Llama3Scaling,
    "yarn": YarnScaling,
    "longrope": LongRopeScaling,
}


def require_rope_scaling(scaling: Mapping[str, Any], *, head_dim: int) -> None:
    """Refuses a scaling of rotary positions that mlx-lm would misread.

    Args:
        scaling: `type` or `rope_type`, and the fields of that kind; `default` has none.
        head_dim: H, of which each pair has a frequency.

    Raises:
        FieldError: Names the field and what it must be.
    """
    rest = dict(scaling)
    kinds = [rest.pop(key) for key in ("type", "rope_type") if key in rest]
    kind = kinds[0] if kinds else None
    choices = ["default", *ROPE_SCALINGS]
    known = isinstance(kind, str) and kind in choices and all(each == kind for each in kinds)
    require(known, "rope_scaling", "name its kind as rope_type", kinds[-1] if kinds else None, allowed=choices)
    if kind == "default":
        require(not rest, "rope_scaling", "have no fields where rope_type is default", rest)
        return
    try:
        parsed = from_mapping(ROPE_SCALINGS[str(kind)], rest, path="rope_scaling")
    except UserError as error:
        raise FieldError(str(error)) from None
    if isinstance(parsed, LongRopeScaling):
        condition = f"have {head_dim // 2} items, half of head_dim"
        for field in ("short_factor", "long_factor"):
            count = len(getattr(parsed, field))
            require(count == head_dim // 2, f"rope_scaling.{field}", condition, count)
