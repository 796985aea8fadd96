"""Spreads that no clock ever gave.

Real times scatter differently in every cell: with twenty rounds a standard deviation is itself known to 16 % only. A
spread that is the same share of the mean in row after row, or a round percentage in every row, was made up.
"""

from collections.abc import Sequence

import numpy as np

from eval.rows import Row

FLAG = "constant_spread"
# Four estimates that agree within one part in a hundred by chance: less than one in ten thousand.
MIN_ROWS = 4
AGREEMENT = 0.01
# Of a percentage point; a spread lies this close to a multiple of a half by chance once in twelve times.
ROUNDNESS = 0.02


def constant_relative_spread(relative_spreads: Sequence[float], *, agreement: float = AGREEMENT) -> bool:
    """Whether the spreads of different rows are one share of their means.

    Args:
        relative_spreads: Standard deviation over mean, of each row.
        agreement: Largest difference between two of them, as a share of their mean; more where a table was rounded.

    Returns:
        False for fewer than four rows, and for rows without any spread.
    """
    spreads = np.asarray(relative_spreads, dtype=np.float64)
    if len(spreads) < MIN_ROWS or not np.all(spreads > 0):
        return False
    return bool(np.ptp(spreads) <= agreement * spreads.mean())


def round_relative_spread(relative_spreads: Sequence[float]) -> bool:
    """Whether every row's spread is a round percentage of its mean, a multiple of one half (5 %, 2.5 %).

    Args:
        relative_spreads: Standard deviation over mean, of each row.

    Returns:
        False for fewer than four rows, and for rows without any spread.
    """
    percentages = 100 * np.asarray(relative_spreads, dtype=np.float64)
    if len(percentages) < MIN_ROWS or not np.all(percentages > 2 * ROUNDNESS):
        return False
    return bool(np.all(np.abs(percentages - np.round(2 * percentages) / 2) <= ROUNDNESS))


def spread_flags(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The flag of every row whose spread is suspicious beside the spreads of the others.

    Returns:
        identity -> flags, for all rows with a spread together; empty where nothing is suspicious.
    """
    spreads = {
        row.identity: row.timing.coefficient_of_variation
        for row in rows
        if row.timing is not None and row.timing.coefficient_of_variation is not None
    }
    values = list(spreads.values())
    if constant_relative_spread(values) or round_relative_spread(values):
        return {identity: [FLAG] for identity in spreads}
    return {}
