"""The rules by which an interval becomes a verdict, all in one place.

- A claim with a figure is reproduced if our 95 % interval overlaps the published figure give or take 10 %, and, where
  the figure is a ratio that claims a difference, lies wholly on its side of 1. A figure within 2 % of 1 claims a tie.
- A claim of direction ("slower", "wins") is reproduced if our interval lies wholly on the published side of 1.
- A claim of equality ("about 1x", "marginal", 1.01x) is reproduced if our interval lies within 10 % of 1.
- A claim about slopes is reproduced if our interval overlaps the published slope give or take 0.1.
- A claim about a crossover is reproduced if our interval overlaps the published range give or take 10 %.
- Whatever compared two functions that were said to be one, or timed another function than it names, is "different
  functions compared"; our figure stands beside it, like for like, with what its verdict would have been.
- So is a function that was compared with itself, one that never ran, and other software than this library's.
- Absolute figures of Apple's GPU, and what its hardware is said to favour, are not measurable elsewhere.
- What ranks several is reproduced only if the interval of every other one's ratio to the winner excludes 1.
"""

from eval.claims.claim import MissingRowsError, Verdict

FIGURE_TOLERANCE = 0.10
SLOPE_TOLERANCE = 0.10
EQUALITY = 0.02


def verdict(holds: bool) -> Verdict:
    """Of a claim that holds in our rows, or does not."""
    return "reproduced" if holds else "not reproduced"


def known(low: float | None, high: float | None) -> tuple[float, float]:
    """Both ends of an interval.

    Raises:
        MissingRowsError: If there is none, because there was one sample only.
    """
    if low is None or high is None:
        raise MissingRowsError("a single sample has no interval")
    return low, high


def same_side(low: float, high: float, *, above: bool) -> bool:
    """Whether an interval of a ratio lies wholly above 1, or wholly below."""
    return low > 1 if above else high < 1


def overlaps(low: float, high: float, published: float) -> bool:
    """Whether an interval overlaps a positive figure give or take the tolerance."""
    return low <= published * (1 + FIGURE_TOLERANCE) and high >= published * (1 - FIGURE_TOLERANCE)


def is_tie(published: float) -> bool:
    """Whether a published ratio claims a tie."""
    return abs(published - 1) <= EQUALITY


def same_figure(low: float, high: float, published: float) -> bool:
    """Whether an interval of a ratio agrees with a published ratio."""
    if is_tie(published):
        return ties(low, high)
    return overlaps(low, high, published) and same_side(low, high, above=published > 1)


def ties(low: float, high: float) -> bool:
    """Whether an interval of a ratio lies within the tolerance of 1."""
    return low >= 1 - FIGURE_TOLERANCE and high <= 1 + FIGURE_TOLERANCE


def may_tie(low: float, high: float) -> bool:
    """Whether an interval of a ratio leaves open that the two tie: it reaches into the tolerance of 1."""
    return low <= 1 + FIGURE_TOLERANCE and high >= 1 - FIGURE_TOLERANCE


def same_slope(low: float, high: float, published: float) -> bool:
    """Whether an interval of a slope agrees with a published slope."""
    return low <= published + SLOPE_TOLERANCE and high >= published - SLOPE_TOLERANCE


def in_range(low: float, high: float, least: float, most: float, tolerance: float = FIGURE_TOLERANCE) -> bool:
    """Whether an interval overlaps a published range give or take a tolerance."""
    return low <= most * (1 + tolerance) and high >= least * (1 - tolerance)
