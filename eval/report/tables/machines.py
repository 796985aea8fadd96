"""Where the rows were measured, and with what versions."""

import collections
from collections.abc import Sequence

from eval.report.tables.table import Table
from eval.report.wording import plain
from eval.rows import Machine, Row

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
