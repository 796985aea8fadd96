"""What summaries are made of: rows by name, and ratios of rows that were timed in the same rounds."""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from eval import query
from eval.query import Measured
from eval.rows import Row


def timed_rows(rows: Iterable[Row], suite: str) -> list[Measured]:
    """The timed rows of a suite, A/A controls left out."""
    return query.measured(rows, suites=(suite,), timed=True)


def by_group(rows: Iterable[Measured]) -> dict[str, dict[str, Measured]]:
    """Group -> variant -> row."""
    groups: dict[str, dict[str, Measured]] = {}
    for each in rows:
        groups.setdefault(each.cell.group, {})[each.cell.variant] = each
    return groups


class Ratio(TypedDict):
    """A ratio of times with its interval, as summaries print it."""

    ratio: float
    low: float | None
    high: float | None


def ratio_of(numerator: Measured, denominator: Measured) -> Ratio | None:
    """Ratio of two times of the same rounds; None if the rounds were not the same."""
    found = query.ratio_of(numerator, denominator)
    return None if found is None else Ratio(ratio=found.ratio, low=found.low, high=found.high)


def statuses(rows: Sequence[Row], suite: str) -> dict[str, Any]:
    """How many rows of a suite there are of each status."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.cell is not None and row.cell.suite == suite:
            counts[row.status] = counts.get(row.status, 0) + 1
    return {"figure": "rows by status", **dict(sorted(counts.items()))}
