"""What summaries are made of: rows by name, and ratios of rows that were timed in the same rounds."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from eval.rows import Cell, Row
from eval.statistics.ratios import paired_ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedRow:
    """A row that has a cell and times.

    Attributes:
        row: The whole row.
        cell: Its cell.
        samples: Its seconds, round by round.
    """

    row: Row
    cell: Cell
    samples: tuple[float, ...]

    @property
    def rounds_id(self) -> str | None:
        """Names the rounds; None for rows that are older than these names."""
        return None if self.row.timing is None else self.row.timing.rounds_id

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.samples)


def timed_rows(rows: Iterable[Row], suite: str) -> list[TimedRow]:
    """The timed rows of a suite, A/A controls left out."""
    return [
        TimedRow(row=row, cell=row.cell, samples=tuple(row.timing.samples_seconds))
        for row in rows
        if row.cell is not None
        and row.timing is not None
        and row.cell.suite == suite
        and row.cell.role != "control"
        and row.cell.level != "device"
    ]


def by_group(rows: Iterable[TimedRow]) -> dict[str, dict[str, TimedRow]]:
    """Group -> variant -> row."""
    groups: dict[str, dict[str, TimedRow]] = {}
    for each in rows:
        groups.setdefault(each.cell.group, {})[each.cell.variant] = each
    return groups


def share_rounds(one: TimedRow, other: TimedRow) -> bool:
    """Whether the samples of two rows of a group pair by index."""
    return one.rounds_id == other.rounds_id and len(one.samples) == len(other.samples)


class Ratio(TypedDict):
    """A ratio of times with its interval, as summaries print it."""

    ratio: float
    low: float | None
    high: float | None


def ratio_of(numerator: TimedRow, denominator: TimedRow) -> Ratio | None:
    """Ratio of two times of the same rounds; None if the rounds were not the same."""
    if not share_rounds(numerator, denominator):
        return None
    found = paired_ratio(numerator.samples, denominator.samples)
    return Ratio(ratio=found.ratio, low=found.low, high=found.high)


def statuses(rows: Sequence[Row], suite: str) -> dict[str, Any]:
    """How many rows of a suite there are of each status."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.cell is not None and row.cell.suite == suite:
            counts[row.status] = counts.get(row.status, 0) + 1
    return {"figure": "rows by status", **dict(sorted(counts.items()))}
