"""How many rows of each suite there are of each status, so that none goes missing unseen; and their machines."""

import collections
from collections.abc import Sequence
from typing import get_args

from eval.report.tables.table import Table
from eval.report.wording import plain
from eval.rows import Machine, Row
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


_SHORT_COMMIT = 10


def machines_table(rows: Sequence[Row]) -> Table:
    """A line for each device with one set of versions and one commit."""
    counts = collections.Counter(row.machine for row in rows)
    columns = (*(name.replace("_", " ") for name in Machine.model_fields), "rows", "first row", "last row")
    lines = []
    for machine, count in counts.items():
        times = [row.recorded_at for row in rows if row.machine == machine]
        lines.append((*_facts(machine), f"{count}", min(times)[:16], max(times)[:16]))
    # As many machines are few and their facts are many, facts go downwards.
    turned = tuple(zip(columns, *lines, strict=True))
    return Table(columns=("", *(f"{index + 1}" for index in range(len(lines)))), rows=turned)


def commits(rows: Sequence[Row]) -> str:
    """The commits of rows, shortened; says where the checkout had changes of its own."""
    found = dict.fromkeys((row.machine.commit, bool(row.machine.uncommitted_changes)) for row in rows)
    return ", ".join(f"{(commit or 'unknown')[:_SHORT_COMMIT]}{' + changes' * changed}" for commit, changed in found)


def _facts(machine: Machine) -> tuple[str, ...]:
    facts = machine.model_dump()
    facts["commit"] = None if machine.commit is None else machine.commit[:_SHORT_COMMIT]
    return tuple(plain(value) for value in facts.values())
