"""Token order inside an attention layer: rotary positions and ALiBi's slopes.

Rotary: Su et al., "RoFormer", https://arxiv.org/abs/2104.09864. Pair i of H channels turns by the angle
position · theta^(-2i/H). A scaling changes these frequencies, as transformers reads its name and fields; mlx-lm's own
reading differs from that in several of them. ALiBi: Press et al., "Train Short, Test Long",
https://arxiv.org/abs/2108.12409; for a number of heads that is no power of two the slopes are interleaved as in
the authors' code.

Letters: B batch, L length, N heads, H head_dim.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.rope_utils import initialize_rope

from zoo.config import MOST, FieldError, UserError, from_mapping, require, require_within
from zoo.ops.rotary import rotate

# Longer than any text there is; and what float32 tells from 0.
_FACTORS = (1e-6, 1e6)
# Five hundred times the widest heads there are: each pair of channels has a frequency of its own.
_WIDEST = 65_536


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
        attention_factor: The correction itself, in place of the two; None to compute it.
        truncate: Whether the ramp between the two kinds of frequencies begins and ends at whole pairs of channels.
    """

    original_max_position_embeddings: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, 2, MOST, "original_max_position_embeddings")
        require_within(self, *_FACTORS, "beta_fast", "beta_slow", "attention_factor")
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
    """Refuses a scaling of rotary positions that is none.

    Args:
        scaling: `type` or `rope_type`, and the fields of that kind; `default` has none.
        head_dim: H, of which each pair has a frequency.

    Raises:
        FieldError: Names the field and what it must be.
    """
    _parsed(scaling, head_dim=head_dim)


def _parsed(scaling: Mapping[str, Any], *, head_dim: int) -> tuple[str, Any]:
    """The kind of a scaling, and its fields as a dataclass; None of the default."""
    rest = dict(scaling)
    kinds = [rest.pop(key) for key in ("type", "rope_type") if key in rest]
    kind = kinds[0] if kinds else None
    choices = ["default", *ROPE_SCALINGS]
    known = isinstance(kind, str) and kind in choices and all(each == kind for each in kinds)
    require(known, "rope_scaling", "name its kind as rope_type", kinds[-1] if kinds else None, allowed=choices)
    if kind == "default":
        require(not rest, "rope_scaling", "have no fields where rope_type is default", rest)
        return "default", None
    require(head_dim <= _WIDEST, "head_dim", f"be at most {_WIDEST} with rope_scaling", head_dim)
    try:
        parsed = from_mapping(ROPE_SCALINGS[str(kind)], rest, path="rope_scaling")
    except UserError as error:
        raise FieldError(str(error)) from None
    if isinstance(parsed, LongRopeScaling):
        condition = f"have {head_dim // 2} items, half of head_dim"
        for field in ("short_factor", "long_factor"):
            count = len(getattr(parsed, field))
            require(count == head_dim // 2, f"rope_scaling.{field}", condition, count)
    return str(kind), parsed


class Rotary(nn.Module):
    """Rotary positions whose frequencies follow from a base."""

    def __init__(self, theta: float, *, traditional: bool, scale: float = 1.0) -> None:
        """Takes the base, and what positions are multiplied by."""
        super().__init__()
        self._theta, self._traditional, self._scale = theta, traditional, scale

    def __call__(self, x_BNLH: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Turns queries or keys whose first position is `offset`, an int or int32 [B]."""
        return rotate(x_BNLH, offset, base=self._theta, scale=self._scale, traditional=self._traditional)


class ScaledRotary(nn.Module):
    """Rotary positions of given frequencies."""

    def __init__(self, frequencies: np.ndarray, *, traditional: bool, scale: float = 1.0) -> None:
        """Takes the angle per position of each pair, and what to multiply turned vectors by."""
        super().__init__()
        self._wavelengths = mx.array(1 / frequencies, dtype=mx.float32)
        self._traditional = traditional
        self._scale = scale

    def __call__(self, x_BNLH: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Turns queries or keys whose first position is `offset`, an int or int32 [B]."""
        x_BNLH = x_BNLH if self._scale == 1 else x_BNLH * self._scale
        return rotate(x_BNLH, offset, wavelengths=self._wavelengths, traditional=self._traditional)


class DynamicRotary(nn.Module):
    """Rotary positions whose base grows with the text beyond the trained length.

    With a cache, keys keep the turn that they were given when the text was shorter, as in transformers.
    """

    def __init__(self, head_dim: int, theta: float, *, factor: float, trained_length: int, traditional: bool) -> None:
        """Takes what decides the frequencies of a text of any length."""
        super().__init__()
        self._head_dim, self._theta, self._factor = head_dim, theta, factor
        self._trained_length = trained_length
        self._traditional = traditional

    def __call__(self, x_BNLH: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Turns queries or keys whose first position is `offset`, an int or int32 [B]: each row by its own length."""
        if isinstance(offset, int):
            growth = self._factor * max(offset + x_BNLH.shape[2], self._trained_length) / self._trained_length
            theta = self._theta * (growth - (self._factor - 1)) ** self._exponent
            wavelengths = 1 / _frequencies(self._head_dim, theta)
            return rotate(
                x_BNLH, offset, wavelengths=mx.array(wavelengths, dtype=mx.float32), traditional=self._traditional
            )
        lengths_B = mx.maximum(offset + x_BNLH.shape[2], self._trained_length).astype(mx.float32)
        growth_B = self._factor * lengths_B / self._trained_length - (self._factor - 1)
        theta_B = self._theta * growth_B**self._exponent
        rows = [
            rotate(x_BNLH[row : row + 1], offset[row], wavelengths=wavelengths, traditional=self._traditional)
            for row, wavelengths in enumerate(theta_B[:, None] ** mx.array(_exponents(self._head_dim)))
        ]
        return mx.concatenate(rows)

    @property
    def _exponent(self) -> float:
        # A head of one pair has a single frequency, 1 whatever the base.
        return self._head_dim / max(1, self._head_dim - 2)


def rotary(
    head_dim: int, theta: float, *, traditional: bool, scaling: Mapping[str, Any] | None, max_seq_len: int
) -> nn.Module:
    """A module that turns queries and keys to their positions.

    Args:
        head_dim: H.
        theta: Base of the frequencies.
        traditional: Whether adjacent pairs are turned instead of the two halves of a head.
        scaling: What `require_rope_scaling` accepts, or None.
        max_seq_len: The length that the model is meant for, beyond which a dynamic scaling begins.

    Returns:
        `module(x_BNLH, offset=…)`.
    """
    kind, fields = _parsed(scaling or {"rope_type": "default"}, head_dim=head_dim)
    if kind == "default":
        return Rotary(theta, traditional=traditional)
    if kind == "linear":
        return Rotary(theta, traditional=traditional, scale=1 / fields.factor)
    if kind == "dynamic":
        return DynamicRotary(head_dim, theta, factor=fields.factor, trained_length=max_seq_len, traditional=traditional)
    if kind == "llama3":
        return ScaledRotary(_llama3_frequencies(head_dim, theta, fields), traditional=traditional)
    if kind == "yarn":
        scale = _yarn_scale(fields)
        return ScaledRotary(_yarn_frequencies(head_dim, theta, fields), traditional=traditional, scale=scale)
    return initialize_rope(head_dim, theta, traditional, dict(scaling or {}), max_seq_len)


def _exponents(head_dim: int) -> np.ndarray:
    return np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)


def _frequencies(head_dim: int, theta: float) -> np.ndarray:
    """Angle per position of each pair, float64 [H/2]."""
    return theta ** -_exponents(head_dim).astype(np.float64)


def _llama3_frequencies(head_dim: int, theta: float, fields: Llama3Scaling) -> np.ndarray:
    frequencies = _frequencies(head_dim, theta)
    # Turns over the trained length: below the first bound a frequency is divided, above the second it stays.
    turns = fields.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = fields.low_freq_factor, fields.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / fields.factor)


def _yarn_frequencies(head_dim: int, theta: float, fields: YarnScaling) -> np.ndarray:
    def pair_of(turns: float) -> float:
        """The pair, as a fraction, that makes so many turns over the trained length."""
        ratio = fields.original_max_position_embeddings / (turns * 2 * math.pi)
        # A base of 1 has one frequency, which makes every turn.
        return head_dim * math.log(ratio) / (2 * max(math.log(theta), 1e-9))

    first, last = pair_of(fields.beta_fast), pair_of(fields.beta_slow)
    if fields.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        # A step where there is no ramp.
        last += 0.001
    kept = 1 - np.clip((np.arange(head_dim // 2) - first) / (last - first), 0, 1)
    return _frequencies(head_dim, theta) * (kept + (1 - kept) / fields.factor)


def _yarn_scale(fields: YarnScaling) -> float:
    """What turned queries and keys are multiplied by, each."""
    if fields.attention_factor is not None:
        return fields.attention_factor

    def correction(strength: float) -> float:
        return 1.0 if fields.factor <= 1 else 0.1 * strength * math.log(fields.factor) + 1.0

    return correction(fields.mscale) / correction(fields.mscale_all_dim)
