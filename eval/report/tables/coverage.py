"""How many rows of each suite there are of each status: no cell goes missing unseen."""

import collections
from collections.abc import Sequence
from typing import get_args

from eval.report.tables.table import Table
from eval.rows import Row
from eval.rows.schema import Status

QUALITY = "quality"


def section_of(row: Row) -> str:
    """The suite of a speed row, or the task of a quality row."""
    if row.cell is not None:
        return row.cell.suite
    return QUALITY if row.quality is None else f"{QUALITY}: {row.quality.task}"


def coverage_table(rows: Sequence[Row]) -> Table:
    """A line for each suite and each task, and one for all."""
    counts: dict[str, collections.Counter[str]] = {}
    for row in rows:
        counts.setdefault(section_of(row), collections.Counter())[row.status] += 1
    statuses = [status for status in get_args(Status) if any(each[status] for each in counts.values())]
    totals = {**counts, "all": sum(counts.values(), collections.Counter())}
    lines = [(name, f"{each.total()}", *(f"{each[status]}" for status in statuses)) for name, each in totals.items()]
    columns = ("suite", "rows", *(status.replace("_", " ") for status in statuses))
    return Table(columns=columns, rows=tuple(lines))


def reasons_table(rows: Sequence[Row]) -> Table:
    """Why rows are not ok, the most frequent reason first."""
    reasons = collections.Counter(
        (row.status.replace("_", " "), row.reason or "no reason given") for row in rows if row.status != "ok"
    )
    lines = [(status, f"{count}", reason) for (status, reason), count in reasons.most_common()]
    return Table(columns=("status", "rows", "reason"), rows=tuple(lines))
