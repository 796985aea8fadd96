"""How figures read in a finding."""

from collections.abc import Mapping

from eval.claims.claim import MissingRowsError
from eval.claims.evidence import Evidence, Pair, Series, Setting


def with_interval(value: float, low: float | None, high: float | None, *, digits: int = 2) -> str:
    """A figure and its 95 % interval."""
    if low is None or high is None:
        return f"{value:.{digits}f} (a single sample, no interval)"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def times(pair: Pair) -> str:
    """A ratio of times with its interval."""
    ratio = pair.ratio
    return with_interval(ratio.ratio, ratio.low, ratio.high) + "x"


def at_lengths(pairs: Mapping[int, Pair]) -> str:
    """Ratios, length by length."""
    return "; ".join(f"N={length}: {times(pair)}" for length, pair in pairs.items())


def beside(evidence: Evidence, numerator: Series, denominator: Series, setting: Setting) -> str:
    """A further ratio, or that it was not measured."""
    try:
        figure = times(evidence.pair(numerator, denominator, setting))
    except MissingRowsError:
        figure = "not measured"
    return f"{numerator.label} over {denominator.label} ({setting.mode}, N={setting.length}): {figure}"
