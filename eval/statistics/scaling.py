"""How times grow with the length: exponents, and the lengths at which one thing overtakes another."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eval.statistics.intervals import (
    MIN_BOOTSTRAP_SAMPLES,
    NUM_RESAMPLES,
    Contrast,
    Floats,
    contrast,
    expanded_confidence,
    logarithms,
)

FasterAt = Literal["long lengths", "short lengths", "every length", "no length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossover:
    """The length from which on a ratio of times stays on the other side of 1.

    Attributes:
        length: Between measured lengths by a straight line of log ratio over log length; None: there is none.
        low: Lower end of the 95 % interval; None: below the shortest length, or unknown for want of samples.
        high: Upper end; None: beyond the longest length, or unknown for want of samples.
        faster_at: Where the numerator is the faster one.
    """

    length: float | None
    low: float | None
    high: float | None
    faster_at: FasterAt


def scaling_exponent(lengths: Sequence[int], samples: Sequence[Sequence[float]]) -> Contrast:
    """The power of the length with which a time grows: 1 linear, 2 quadratic.

    It is the slope of the least-squares line through the medians, log seconds over log length.

    Args:
        lengths: At least two different ones.
        samples: Positive times of each length.

    Raises:
        ValueError: If there are fewer than two lengths, two are equal, or a sample is not positive and finite.
    """
    positions = _positions(lengths)
    centred = positions - positions.mean()
    return contrast([logarithms(each) for each in samples], [float(x) for x in centred / (centred**2).sum()])


def crossover(
    lengths: Sequence[int],
    numerator_samples: Sequence[Sequence[float]],
    denominator_samples: Sequence[Sequence[float]],
) -> Crossover:
    """Where the paired ratio of two times passes 1 for good.

    Args:
        lengths: At least two different ones.
        numerator_samples: Times of each length, one for each round.
        denominator_samples: Times of each length, of the same rounds.

    Raises:
        ValueError: If there are fewer than two lengths, two are equal, paired samples differ in number, or one is not
            positive and finite.
    """
    positions = _positions(lengths)
    order = np.argsort(positions)
    pairs = [(logarithms(a), logarithms(b)) for a, b in zip(numerator_samples, denominator_samples, strict=True)]
    if len(pairs) != len(lengths) or any(above.size != below.size for above, below in pairs):
        raise ValueError("paired samples must be equally many, for each of the lengths")
    ratios = [pairs[index][0] - pairs[index][1] for index in order]
    medians = np.array([np.median(ratio) for ratio in ratios])
    # What matters is the passing from above 1 to below; a ratio that rises is turned over.
    direction = 1.0 if medians[0] >= medians[-1] else -1.0
    crossing = _last_falls(positions[order], direction * medians[None])[0]
    low, high = _interval(positions[order], [direction * ratio for ratio in ratios])
    return Crossover(
        length=_length(crossing),
        low=_length(low),
        high=_length(high),
        faster_at=_faster_at(float(crossing), direction),
    )


def _positions(lengths: Sequence[int]) -> Floats:
    if len(lengths) < 2 or len(set(lengths)) < len(lengths):
        raise ValueError(f"lengths must be two different ones at least; got {list(lengths)}")
    return logarithms([float(length) for length in lengths])


def _interval(positions: Floats, ratios: Sequence[Floats]) -> tuple[float, float]:
    size = min(ratio.size for ratio in ratios)
    if size < MIN_BOOTSTRAP_SAMPLES:
        return -math.inf, math.inf
    confidence = expanded_confidence(size)
    # Not SciPy's bootstrap: it has no way to order "before the first length" and "after the last" among numbers.
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(ratio, (NUM_RESAMPLES, ratio.size)), axis=1) for ratio in ratios]
    crossings = _last_falls(positions, np.stack(medians, axis=1))
    low, high = np.quantile(crossings, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


def _last_falls(positions: Floats, medians: Floats) -> Floats:
    """For each row of medians, where it falls below 0 for the last time; -inf: from the start, inf: never."""
    above = medians > 0
    last = above.shape[1] - 1 - np.argmax(above[:, ::-1], axis=1)
    left = np.minimum(last, above.shape[1] - 2)
    rows = np.arange(len(medians))
    start, end = medians[rows, left], medians[rows, left + 1]
    fall = np.where(start > end, start - end, 1.0)
    inside = positions[left] + (positions[left + 1] - positions[left]) * start / fall
    return np.where(~above.any(axis=1), -np.inf, np.where(last == above.shape[1] - 1, np.inf, inside))


def _length(position: float) -> float | None:
    return math.exp(position) if math.isfinite(position) else None


def _faster_at(crossing: float, direction: float) -> FasterAt:
    if math.isfinite(crossing):
        return "long lengths" if direction > 0 else "short lengths"
    return "every length" if (crossing < 0) == (direction > 0) else "no length"
