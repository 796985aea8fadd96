"""Differences of figures that seeds pair: two variants that were trained with the same seeds."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eval.statistics.contrasts import CONFIDENCE


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifferenceEstimate:
    """A mean difference and how sure it is.

    Attributes:
        difference: Mean over the pairs.
        low: Lower end of its 95 % interval, Student's over the pairs; None for a single pair.
        high: Upper end.
    """

    difference: float
    low: float | None
    high: float | None


def paired_difference(minuend: Sequence[float], subtrahend: Sequence[float]) -> DifferenceEstimate:
    """Mean of the pairs' own differences: what a seed does to both of a pair cancels.

    With three seeds Student's interval is wide, 2.5 times the differences' standard deviation to each side, and should
    be: a bootstrap of three values would hide it.

    Args:
        minuend: One figure for each pair.
        subtrahend: One figure for each of the same pairs.

    Raises:
        ValueError: If there are no pairs, or the numbers of figures differ.
    """
    if len(minuend) != len(subtrahend) or not len(minuend):
        raise ValueError(f"paired figures must be equally many, at least one; got {len(minuend)} and {len(subtrahend)}")
    differences = np.asarray(minuend, dtype=np.float64) - np.asarray(subtrahend, dtype=np.float64)
    mean = float(differences.mean())
    if differences.size < 2:
        return DifferenceEstimate(difference=mean, low=None, high=None)
    # It takes longer to import than most of what a command does.
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, differences.size - 1) * stats.sem(differences))
    return DifferenceEstimate(difference=mean, low=mean - half, high=mean + half)
