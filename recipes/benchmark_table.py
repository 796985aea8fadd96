"""What a person sees of a benchmark: a bar while it runs, and a table of rows at its end."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from eval.bench.runner import Progress
from eval.query import Change
from eval.rows import Row
from zoo.config.errors import printable


@contextlib.contextmanager
def group_bar() -> Iterator[Progress]:
    """What shows the group at work in a bar on stderr, drawn once there is something to measure."""
    bars: list[tqdm[Any]] = []

    def show(done: int, total: int, name: str) -> None:
        if not bars:
            bars.append(stack.enter_context(tqdm(total=total, unit="group", file=sys.stderr, dynamic_ncols=True)))
        bars[0].set_description(name, refresh=False)
        bars[0].update(done - bars[0].n)
        bars[0].refresh()

    with contextlib.ExitStack() as stack:
        yield show


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """One line a row, under the name of its group."""
    width = max((len(row.cell.variant) for row in rows if row.cell is not None), default=0)
    previous = None
    for row in rows:
        if row.cell is None:
            continue
        group = f"{row.cell.suite}/{row.cell.group}"
        if group != previous:
            yield printable(group)
        previous = group
        yield printable(f"  {row.cell.variant:{width}}  {_time(row):>12}  {_ratio(row):24}  {_remarks(row)}".rstrip())


def change_lines(found: Sequence[Change]) -> Iterator[str]:
    """One line for each cell that differs from the other run."""
    changed = [change for change in found if change.changed]
    yield f"{len(changed)} of {len(found)} cells differ from the other run"
    for notice in dict.fromkeys(change.notice for change in found if change.notice is not None):
        yield printable(f"  {notice}")
    for change in changed:
        place = printable(f"{change.cell.suite}/{change.cell.group} {change.cell.variant}")
        if change.row.status != change.other.status:
            yield f"  {place}: {change.other.status} -> {change.row.status}"
        elif change.ratio is not None:
            yield f"  {place}: {_interval(change.ratio.value, change.ratio.low, change.ratio.high)}"


def _time(row: Row) -> str:
    if row.timing is None:
        return "-"
    seconds = row.timing.median_seconds
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3f} {unit}"
    return f"{seconds * 1e6:.1f} µs"


def _ratio(row: Row) -> str:
    found = row.comparison
    return "" if found is None else _interval(found.ratio, found.ratio_low, found.ratio_high)


def _interval(ratio: float, low: float | None, high: float | None) -> str:
    between = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"× {ratio:.3f}{between}"


def _remarks(row: Row) -> str:
    other = row.comparison is not None and not row.comparison.same_function
    remarks = [row.status, *row.flags, *(["another function"] if other else [])]
    return ", ".join(remarks) + ("" if row.reason is None else f": {row.reason}")
