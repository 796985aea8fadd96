"""What changed between two runs: two machines, two commits, two versions."""

import dataclasses
from collections.abc import Sequence

from eval.rows import Cell, Machine, Row
from eval.statistics.ratios import RatioEstimate, holm, unpaired_ratio

# Times on two of these are times of two different things.
DEVICE_FIELDS = ("device", "backend", "cores")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One cell, in two runs.

    Attributes:
        identity: The cell's.
        cell: The cell.
        status: Now.
        other_status: In the other run.
        ratio: Median seconds now over then, of samples that were not interleaved: what else changed on the machine is
            in it. None where one of them has no times.
        p_value: Of the ratio, corrected over all cells (Holm).
        differences: What differs between the machines and versions, as `field: then -> now`.
        same_device: Whether both ran on one kind of device.
    """

    identity: str
    cell: Cell
    status: str
    other_status: str
    ratio: RatioEstimate | None
    p_value: float | None
    differences: tuple[str, ...]
    same_device: bool

    @property
    def changed(self) -> bool:
        """Whether the status changed, or the ratio's interval excludes 1."""
        return self.status != self.other_status or (self.ratio is not None and self.ratio.differs)

    @property
    def notice(self) -> str | None:
        """What a reader must know before believing the ratio; None if nothing."""
        if not self.same_device:
            return "different devices: " + ", ".join(self.differences)
        return "different versions: " + ", ".join(self.differences) if self.differences else None


def changes(rows: Sequence[Row], other_rows: Sequence[Row]) -> list[Change]:
    """Matches the speed rows of two runs by what was measured, whatever the machine.

    Where the other run holds a cell several times (merged from several machines), the row of the same device is taken,
    and of several the newest.

    Args:
        rows: Of this run.
        other_rows: Of the run to compare with.

    Returns:
        One for each cell that both hold, in the order of `rows`; `changed` tells which matter.
    """
    others: dict[str, list[Row]] = {}
    for other in other_rows:
        if other.kind == "speed":
            others.setdefault(other.identity, []).append(other)
    matched = [
        _change(row, _closest(row, others[row.identity]), row.cell)
        for row in rows
        if row.kind == "speed" and row.cell is not None and row.identity in others
    ]
    return _corrected(matched)


def _closest(row: Row, candidates: Sequence[Row]) -> Row:
    return max(candidates, key=lambda other: (_same_device(row.machine, other.machine), other.recorded_at))


def _change(row: Row, other: Row, cell: Cell) -> Change:
    ratio = None
    if row.timing is not None and other.timing is not None:
        ratio = unpaired_ratio(row.timing.samples_seconds, other.timing.samples_seconds)
    now, then = row.machine.model_dump(), other.machine.model_dump()
    return Change(
        identity=row.identity,
        cell=cell,
        status=row.status,
        other_status=other.status,
        ratio=ratio,
        p_value=None if ratio is None else ratio.p_value,
        differences=tuple(f"{key}: {then[key]} -> {now[key]}" for key in now if now[key] != then[key]),
        same_device=_same_device(row.machine, other.machine),
    )


def _same_device(machine: Machine, other: Machine) -> bool:
    now, then = machine.model_dump(include=set(DEVICE_FIELDS)), other.model_dump(include=set(DEVICE_FIELDS))
    return now == then


def _corrected(found: Sequence[Change]) -> list[Change]:
    tested = [(index, change.p_value) for index, change in enumerate(found) if change.p_value is not None]
    corrected = dict(zip((index for index, _ in tested), holm([p_value for _, p_value in tested]), strict=True))
    return [dataclasses.replace(change, p_value=corrected.get(index)) for index, change in enumerate(found)]
