"""Rows of one device, found by what they measured, and paired where they were timed in the same rounds."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from eval.query import Measured, Pair, pairs_of
from eval.rows import Cell, Row
from zoo.attention.mechanism import resolved_kv_heads


class MissingRowsError(Exception):
    """The rows that a claim needs are not there, or hold no times; says which and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a figure: a mechanism, how it is computed, and its parameters; what is None may be anything.

    Attributes:
        label: In texts.
        variant: The whole name of a cell's series, for what is none of a mechanism.
        mechanism: As in the variant's mapping.
        implementation: As in the variant's mapping.
        parameters: Those that matter; others may have any value.
        num_kv_heads: Key/value heads that the variant asks for; None: it leaves them to the model.
        causal: Of the cell.
    """

    label: str
    variant: str | None = None
    mechanism: str | None = None
    implementation: str | None = None
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_kv_heads: int | None = None
    causal: bool | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this series."""
        if self.causal is not None and cell.causal != self.causal:
            return False
        if self.variant is not None:
            return cell.variant == self.variant
        if cell.attention is None:
            return False
        mapping = cell.attention_mapping
        if (mapping.get("mechanism"), mapping.get("implementation")) != (self.mechanism, self.implementation):
            return False
        if self.mechanism == "softmax" and variant_kv_heads(cell) != self.num_kv_heads:
            return False
        return all(mapping.get(name) == value for name, value in self.parameters.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """Which cells of a suite; None: any."""

    suite: str
    mode: str | None = None
    level: str | None = None
    batch_size: int | None = None
    length: int | None = None
    head_dim: int | None = None
    group: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is there."""
        return all(value is None or value == getattr(cell, name) for name, value in vars(self).items())

    def at(self, length: int) -> "Where":
        """The same at one length."""
        return dataclasses.replace(self, length=length)

    def __str__(self) -> str:
        parts = [f"suite {self.suite}", self.mode or "", f"L={self.length}" if self.length else ""]
        parts += [f"B={self.batch_size}" if self.batch_size else "", f"H={self.head_dim}" if self.head_dim else ""]
        return " ".join(part for part in parts if part)


class Measurements:
    """The rows of one device."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Keeps the rows of the device that has most speed rows, the newest of each identity; devices never mix."""
        devices = collections.Counter(row.machine.device for row in rows if row.kind == "speed")
        devices = devices or collections.Counter(row.machine.device for row in rows)
        self.device = devices.most_common(1)[0][0] if devices else None
        self.other_devices = sorted(set(devices) - {self.device})
        own = [row for row in rows if row.machine.device == self.device]
        own.sort(key=lambda row: (row.recorded_at, row.identity))
        self.rows = list({row.identity: row for row in own}.values())
        self.backend = self.rows[0].machine.backend if self.rows else None
        self.speed = [Measured(row=row, cell=row.cell) for row in self.rows if row.kind == "speed" and row.cell]

    def find(self, where: Where, series: Series | None = None) -> list[Measured]:
        """Speed rows, of one series or any, whatever their status, A/A controls aside; plain settings first."""
        found = [
            each
            for each in self.speed
            if each.cell.role != "control" and where.holds(each.cell) and (series is None or series.holds(each.cell))
        ]
        return sorted(found, key=lambda each: _unusual(each.cell))

    def timed(self, where: Where, series: Series) -> Measured:
        """The first that has times.

        Raises:
            MissingRowsError: If none has.
        """
        found = self.find(where, series)
        timed = next((each for each in found if each.timing is not None), None)
        if timed is None:
            raise MissingRowsError(_absence(series.label, where, found))
        return timed

    def timed_at(self, lengths: Sequence[int], where: Where, series: Series) -> list[Measured]:
        """The same at each length."""
        return [self.timed(where.at(length), series) for length in lengths]

    def pairs(self, above: Series, below: Series, where: Where) -> list[Pair]:
        """Every pair of two series that were timed against each other."""
        return pairs_of(self.find(where, above), self.find(where, below))

    def some_pairs(self, above: Series, below: Series, where: Where) -> list[Pair]:
        """The same.

        Raises:
            MissingRowsError: If there is none.
        """
        pairs = self.pairs(above, below, where)
        if not pairs:
            self.timed(where, above)
            self.timed(where, below)
            raise MissingRowsError(f"{above.label} and {below.label} were not timed in one group ({where})")
        return pairs

    def pair(self, above: Series, below: Series, where: Where) -> Pair:
        """The first of them; errors as of `some_pairs`."""
        return self.some_pairs(above, below, where)[0]

    def by_length(self, above: Series, below: Series, where: Where, needed: Sequence[int]) -> dict[int, Pair]:
        """A pair of every length that has one, shortest first.

        Raises:
            MissingRowsError: If a needed length has none.
        """
        for length in needed:
            self.pair(above, below, where.at(length))
        found: dict[int, Pair] = {}
        for pair in self.pairs(above, below, where):
            found.setdefault(pair.cell.length, pair)
        return dict(sorted(found.items()))

    def controls(self, where: Where) -> list[Pair]:
        """Every A/A control with the baseline that it repeats."""
        there = [each for each in self.speed if where.holds(each.cell)]
        controls, baselines = ([each for each in there if each.cell.role == role] for role in ("control", "baseline"))
        return pairs_of(controls, baselines)


def variant_kv_heads(cell: Cell) -> int | None:
    """Key/value heads that a cell's variant asks for; None where it leaves them to the model."""
    return resolved_kv_heads(cell.attention_mapping, num_heads=cell.num_heads, num_kv_heads=None)


def identities(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Of all rows of some pairs."""
    return tuple(identity for pair in pairs for identity in pair.identities)


def _unusual(cell: Cell) -> tuple[bool, ...]:
    return cell.dtype != "float32", not cell.compiled, cell.execution != "latency"


def _absence(label: str, where: Where, found: Sequence[Measured]) -> str:
    if not found:
        return f"no rows of {label} ({where})"
    row = found[0].row
    return f"{label} ({where}): {row.status}" + (f", {row.reason}" if row.reason else "")
