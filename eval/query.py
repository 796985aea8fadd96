"""Rows as whoever reads them asks: by device, by what they measured, and paired where they shared their rounds."""

import collections
import dataclasses
import functools
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from eval.rows import Cell, Row
from eval.rows.schema import Timing
from eval.rows.store import newest
from eval.statistics import Contrast, holm, paired_ratio, unpaired_ratio

Place = tuple[str, str, str]
ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT", bound=Hashable)


def grouped(items: Iterable[ItemT], key: Callable[[ItemT], KeyT]) -> dict[KeyT, list[ItemT]]:
    """The items by what the key says of each; groups in the order in which they come."""
    groups: dict[KeyT, list[ItemT]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A speed row with its cell at hand."""

    row: Row
    cell: Cell

    @property
    def timing(self) -> Timing | None:
        """Its times, if it has any."""
        return self.row.timing

    @property
    def times(self) -> Timing:
        """Its times; without any, a ValueError."""
        if self.row.timing is None:
            raise ValueError(f"{self.cell.variant} ({self.cell.suite}/{self.cell.group}) has no times")
        return self.row.timing

    @property
    def samples(self) -> tuple[float, ...]:
        """Seconds of each round; empty without times."""
        return () if self.row.timing is None else tuple(self.row.timing.samples_seconds)

    @property
    def median(self) -> float:
        """Median seconds, of a row with times."""
        return statistics.median(self.times.samples_seconds)

    @property
    def identity(self) -> str:
        """Of the row."""
        return self.row.identity

    @property
    def place(self) -> Place:
        """Suite, group and commit: rows of one place were asked for together, whether or not they have times."""
        return self.cell.suite, self.cell.group, str(self.row.machine.commit)

    @property
    def rounds(self) -> Place:
        """Names the rounds: equal for two rows that were timed against each other."""
        suite, group, commit = self.place
        named = self.timing and self.timing.rounds_id
        return suite, group, named or commit

    @property
    def mechanism(self) -> str | None:
        """Of the attention; None for what has none."""
        return None if self.cell.attention is None else str(self.cell.attention_mapping.get("mechanism"))

    @property
    def peak_bytes(self) -> int | None:
        """Measured peak."""
        return None if self.row.memory is None else self.row.memory.peak_bytes

    @property
    def cache_bytes(self) -> int | None:
        """Measured bytes of the decoding cache."""
        return None if self.row.memory is None else self.row.memory.cache_bytes

    @property
    def analytic_cache_bytes(self) -> int | None:
        """Bytes of the decoding cache by formula."""
        return None if self.row.memory is None else self.row.memory.analytic_cache_bytes


def by_device(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each device, named with its back end, the newest of each identity; most speed rows come first."""
    devices = grouped(rows, lambda row: f"{row.machine.device} ({row.machine.backend})")
    found = {label: newest(own, lambda row: row.identity) for label, own in devices.items()}
    return dict(sorted(found.items(), key=lambda item: -sum(row.kind == "speed" for row in item[1])))


def measured(
    rows: Iterable[Row],
    *,
    suites: Sequence[str] | None = None,
    level: str | None = None,
    mode: str | None = None,
    timed: bool = False,
) -> list[Measured]:
    """Speed rows of variants, of any status or `timed` ones only; A/A controls and the device's own rows left out."""
    return [
        Measured(row=row, cell=row.cell)
        for row in rows
        if row.cell is not None
        and row.cell.role != "control"
        and row.cell.level != "device"
        and (suites is None or row.cell.suite in suites)
        and (level is None or row.cell.level == level)
        and (mode is None or row.cell.mode == mode)
        and (not timed or row.timing is not None)
    ]


def any_timed(rows: Iterable[Measured]) -> bool:
    """Whether any row has times."""
    return any(each.timing is not None for each in rows)


def num_statuses(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows there are of each status, the most frequent first."""
    return dict(collections.Counter(row.status for row in rows).most_common())


def same_rounds(rows: Iterable[Measured]) -> dict[Place, list[Measured]]:
    """Rows that were asked for together; of any two of them `ratio_of` knows whether their rounds were the same."""
    return grouped(rows, lambda each: each.place)


def by_series(rows: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Rows of each series, shortest length first; series in the order in which they come."""
    series = grouped(rows, lambda each: each.cell.variant)
    return {name: sorted(found, key=lambda each: each.cell.length) for name, found in series.items()}


def most_common_rounds(groups: dict[Place, list[Measured]]) -> list[Measured]:
    """Of several groups the one that times most variants; the longest length, then the first name, of equal ones."""
    timed = {name: sum(each.timing is not None for each in group) for name, group in groups.items()}
    first = min(groups, key=lambda name: (-timed[name], -groups[name][0].cell.length, name), default=None)
    return [] if first is None else groups[first]


# Claims ask for the same ratios again and again.
_paired_ratio = functools.lru_cache(maxsize=16384)(paired_ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows timed in the same rounds."""

    numerator: Measured
    denominator: Measured

    @property
    def cell(self) -> Cell:
        """The numerator's cell."""
        return self.numerator.cell

    @property
    def ratio(self) -> Contrast:
        """Numerator's time over the denominator's."""
        return _paired_ratio(self.numerator.samples, self.denominator.samples)

    @property
    def ratios(self) -> list[float]:
        """The same, round by round."""
        return [a / b for a, b in zip(self.numerator.samples, self.denominator.samples, strict=True)]


def pairs_of(above: Iterable[Measured], below: Iterable[Measured]) -> list[Pair]:
    """A pair for each row above whose rounds are those of one below: of the first, where there are several."""
    by_rounds = grouped((each for each in below if each.samples), lambda each: each.rounds)
    pairs = (Pair(numerator=each, denominator=other) for each in above for other in by_rounds.get(each.rounds, ())[:1])
    return [pair for pair in pairs if len(pair.numerator.samples) == len(pair.denominator.samples)]


def ratio_of(numerator: Measured, denominator: Measured) -> Contrast | None:
    """Time over time; None if one has none, or they were not timed in the same rounds."""
    pairs = pairs_of([numerator], [denominator])
    return pairs[0].ratio if pairs else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One cell, in two runs.

    Attributes:
        cell: The cell.
        row, other: Now, and in the other run.
        ratio: Median seconds now over then, of samples that were not interleaved: what else changed on the machine is
            in it. None where one of them has no times.
        p_value: Of the ratio, corrected over all cells (Holm).
    """

    cell: Cell
    row: Row
    other: Row
    ratio: Contrast | None
    p_value: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the status changed, or the ratio's interval excludes 1."""
        return self.row.status != self.other.status or (self.ratio is not None and self.ratio.differs)

    @property
    def notice(self) -> str | None:
        """What a reader must know before believing the ratio; None if nothing."""
        now, then = self.row.machine.model_dump(), self.other.machine.model_dump()
        differences = ", ".join(f"{key}: {then[key]} -> {now[key]}" for key in now if now[key] != then[key])
        what = "versions" if _processor(self.row) == _processor(self.other) else "devices"
        return f"different {what}: {differences}" if differences else None


def changes(rows: Iterable[Row], other_rows: Iterable[Row]) -> list[Change]:
    """A change for each cell that both runs hold, whatever the machine; `changed` tells which matter.

    Where the other run holds a cell several times (merged from several machines), the row of the same device is taken,
    and of several the newest.
    """
    others = grouped((each for each in other_rows if each.kind == "speed"), lambda each: each.identity)
    found = []
    for row in rows:
        if row.cell is not None and row.identity in others:
            here, ratio = _processor(row), None
            other = max(others[row.identity], key=lambda old: (_processor(old) == here, old.recorded_at))
            if row.timing is not None and other.timing is not None:
                ratio = unpaired_ratio(row.timing.samples_seconds, other.timing.samples_seconds)
            found.append(Change(cell=row.cell, row=row, other=other, ratio=ratio))
    tested = {index: p for index, each in enumerate(found) if each.ratio and (p := each.ratio.p_value) is not None}
    for index, corrected in zip(tested, holm(list(tested.values())), strict=True):
        found[index] = dataclasses.replace(found[index], p_value=corrected)
    return found


def _processor(row: Row) -> tuple[str, str, int]:
    """Times on two of these are times of two different things."""
    return row.machine.device, row.machine.backend, row.machine.cores
