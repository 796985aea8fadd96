"""Rows of several runs in one list: two machines, two commits."""

from collections.abc import Sequence

from eval.rows.schema import Machine, Row


def merge(*runs: Sequence[Row]) -> list[Row]:
    """All rows of several runs.

    The same identity on two machines, or on one at two commits or with two versions, is two facts: both stay. On one
    machine it is one fact measured twice: the newer row counts, and of equally old ones the later run's.

    Args:
        runs: Rows of each run, as `read_rows` gives them.

    Returns:
        Rows in the order in which their facts first came.
    """
    kept: dict[tuple[str, Machine], Row] = {}
    for row in (row for run in runs for row in run):
        key = (row.identity, row.machine)
        if key not in kept or row.recorded_at >= kept[key].recorded_at:
            kept[key] = row
    return list(kept.values())
