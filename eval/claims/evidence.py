"""Rows of one device, found by what they measured, and paired where they were timed in the same rounds."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from eval.claims.claim import MissingRowsError
from eval.rows import Cell, Row
from eval.rows.schema import Timing
from eval.statistics.ratios import RatioEstimate, paired_ratio
from zoo.attention.mechanism import resolved_kv_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a figure: a mechanism, how it is computed, and its parameters.

    Attributes:
        label: In texts.
        mechanism: As in the variant's mapping.
        implementation: As in the variant's mapping.
        parameters: Those that matter; others may have any value.
        num_kv_heads: Key/value heads that the variant asks for; None: it leaves them to the model.
        causal: None: either.
    """

    label: str
    mechanism: str
    implementation: str
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_kv_heads: int | None = None
    causal: bool | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this series."""
        if cell.attention is None or (self.causal is not None and cell.causal != self.causal):
            return False
        mapping = cell.attention_mapping
        if (mapping.get("mechanism"), mapping.get("implementation")) != (self.mechanism, self.implementation):
            return False
        if self.mechanism == "softmax" and variant_kv_heads(cell) != self.num_kv_heads:
            return False
        return all(mapping.get(name) == value for name, value in self.parameters.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Which cells of a suite; None: any."""

    suite: str
    mode: str | None = "forward"
    length: int | None = None
    batch_size: int | None = None
    head_dim: int | None = None
    level: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this setting."""
        wanted = (self.suite, self.mode, self.length, self.batch_size, self.head_dim, self.level)
        found = (cell.suite, cell.mode, cell.length, cell.batch_size, cell.head_dim, cell.level)
        return all(want is None or want == have for want, have in zip(wanted, found, strict=True))

    def at(self, length: int) -> "Setting":
        """The same at one length."""
        return dataclasses.replace(self, length=length)

    def __str__(self) -> str:
        parts = [f"suite {self.suite}", self.mode or "", f"L={self.length}" if self.length else ""]
        parts += [f"B={self.batch_size}" if self.batch_size else "", f"H={self.head_dim}" if self.head_dim else ""]
        return " ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows timed in the same rounds."""

    numerator: Row
    denominator: Row

    @property
    def cell(self) -> Cell:
        """The numerator's cell."""
        return cell_of(self.numerator)

    @functools.cached_property
    def ratio(self) -> RatioEstimate:
        """Numerator's time over the denominator's."""
        return paired_ratio(samples(self.numerator), samples(self.denominator))

    @property
    def ratios(self) -> list[float]:
        """The same, round by round."""
        above, below = samples(self.numerator), samples(self.denominator)
        return [a / b for a, b in zip(above, below, strict=True)]

    @property
    def identities(self) -> tuple[str, ...]:
        """Of the two rows."""
        return self.numerator.identity, self.denominator.identity


class Evidence:
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
        self.speed = [row for row in self.rows if row.kind == "speed" and row.cell is not None]

    def find(self, setting: Setting, holds: Callable[[Cell], bool]) -> list[Row]:
        """Speed rows of a setting, whatever their status, A/A controls aside; plain settings first."""
        found = [
            row
            for row in self.speed
            if (cell := cell_of(row)).role != "control" and setting.holds(cell) and holds(cell)
        ]
        return sorted(found, key=lambda row: _unusual(cell_of(row)))

    def timed(self, series: Series, setting: Setting) -> Row:
        """A row with times.

        Raises:
            MissingRowsError: If there is none.
        """
        found = self.find(setting, series.holds)
        for row in found:
            if row.timing is not None:
                return row
        raise MissingRowsError(_absence(series.label, setting, found))

    def pairs(
        self, numerator: Callable[[Cell], bool], denominator: Callable[[Cell], bool], setting: Setting
    ) -> list[Pair]:
        """All pairs of timed rows of a setting that were timed against each other."""
        below: dict[tuple[str | None, ...], Row] = {}
        for row in reversed(self.find(setting, denominator)):
            if row.timing is not None:
                below[_rounds(row)] = row
        above = [row for row in self.find(setting, numerator) if row.timing is not None and _rounds(row) in below]
        pairs = [Pair(numerator=row, denominator=below[_rounds(row)]) for row in above]
        return [pair for pair in pairs if len(samples(pair.numerator)) == len(samples(pair.denominator))]

    def pair(self, numerator: Series, denominator: Series, setting: Setting) -> Pair:
        """The pair of a setting.

        Raises:
            MissingRowsError: If there is none.
        """
        pairs = self.pairs(numerator.holds, denominator.holds, setting)
        if pairs:
            return pairs[0]
        self.timed(numerator, setting)
        self.timed(denominator, setting)
        raise MissingRowsError(f"{numerator.label} and {denominator.label} were not timed in one group ({setting})")

    def by_length(self, numerator: Series, denominator: Series, setting: Setting) -> dict[int, Pair]:
        """A pair of every length that has one, shortest first."""
        found: dict[int, Pair] = {}
        for pair in self.pairs(numerator.holds, denominator.holds, setting):
            found.setdefault(pair.cell.length, pair)
        return dict(sorted(found.items()))

    def controls(self, suite: str) -> list[Pair]:
        """Every A/A control of a suite with the baseline that it repeats."""
        controls = [row for row in self.speed if cell_of(row).suite == suite and cell_of(row).role == "control"]
        baselines = {
            _rounds(row): row
            for row in self.speed
            if cell_of(row).suite == suite and cell_of(row).role == "baseline" and row.timing is not None
        }
        pairs = [
            Pair(numerator=row, denominator=baseline)
            for row in controls
            if row.timing is not None
            and (baseline := baselines.get(_rounds(row))) is not None
            and baseline.timing is not None
        ]
        return [pair for pair in pairs if len(samples(pair.numerator)) == len(samples(pair.denominator))]


def variant_kv_heads(cell: Cell) -> int | None:
    """Key/value heads that a cell's variant asks for; None where it leaves them to the model."""
    return resolved_kv_heads(cell.attention_mapping, num_heads=cell.num_heads, num_kv_heads=None)


def cell_of(row: Row) -> Cell:
    """The cell of a speed row."""
    assert row.cell is not None, "a speed row has a cell"
    return row.cell


def timing_of(row: Row) -> Timing:
    """The timing of a timed row."""
    assert row.timing is not None, "only timed rows are asked for their times"
    return row.timing


def samples(row: Row) -> list[float]:
    """Seconds of each round, of a timed row."""
    return timing_of(row).samples_seconds


def _rounds(row: Row) -> tuple[str | None, ...]:
    """What two rows have in common that were timed in the same rounds; without a name of the rounds, also the code."""
    cell, rounds_id = cell_of(row), timing_of(row).rounds_id
    return cell.suite, cell.group, rounds_id, row.machine.commit if rounds_id is None else None


def _unusual(cell: Cell) -> tuple[bool, ...]:
    return cell.dtype != "float32", not cell.compiled, cell.execution != "latency"


def _absence(label: str, setting: Setting, found: Sequence[Row]) -> str:
    if not found:
        return f"no rows of {label} ({setting})"
    return f"{label} ({setting}): {found[0].status}" + (f", {found[0].reason}" if found[0].reason else "")
