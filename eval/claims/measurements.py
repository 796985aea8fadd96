"""Rows of one device, found by what they measured, and paired where they were timed in the same rounds."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from eval.query import Measured, Pair, pairs_of
from eval.rows import Cell, Quality, Row
from zoo.attention.mechanism import resolved_kv_heads
from zoo.config.errors import require


class MissingRowsError(Exception):
    """The rows that a claim needs are not there, or hold no times; says which and why."""


class Entry(BaseModel):
    """What a file of claims says, in one of its mappings: unknown keys are refused with the choices."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, Mapping) else ():
            require(key in cls.model_fields, "a key", "be known", key, allowed=sorted(cls.model_fields))
        return given


class Series(Entry):
    """One line of a figure: a mechanism, how it is computed, and those of its parameters that matter.

    Attributes:
        label: In texts.
        variant: The whole name of a cell's series, for what is none of a mechanism.
        num_kv_heads: Key/value heads that a softmax variant asks for; None: it leaves them to the model.
        causal: Of the cell; None: either.
    """

    label: str
    variant: str | None = None
    mechanism: str | None = None
    implementation: str | None = None
    parameters: Mapping[str, int] = Field(default_factory=dict)
    num_kv_heads: int | None = None
    causal: bool | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this series."""
        if self.causal is not None and cell.causal != self.causal:
            return False
        if self.variant is not None or cell.attention is None:
            return cell.variant == self.variant
        mapping = cell.attention_mapping
        asked = {"mechanism": self.mechanism, "implementation": self.implementation, **self.parameters}
        if self.mechanism == "softmax" and variant_kv_heads(cell) != self.num_kv_heads:
            return False
        return all(mapping.get(name) == value for name, value in asked.items())


class Where(Entry):
    """Which cells, by their own fields, but the model by a part of its name; None: any."""

    suite: str | None
    mode: str | None = None
    level: str | None = None
    model: str | None = None
    batch_size: int | None = None
    length: int | None = None
    head_dim: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    group: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is there."""
        if self.model is not None and self.model not in (cell.model or ""):
            return False
        there = {**vars(cell), "num_kv_heads": cell.num_kv_heads or cell.num_heads, "model": self.model}
        return all(value is None or value == there[name] for name, value in self)

    def at(self, length: int) -> "Where":
        """The same at one length."""
        return self.model_copy(update={"length": length})

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self if value is not None)


def as_list(given: Any) -> Any:
    """A list for what may be one or several."""
    return given if isinstance(given, (list, tuple)) else [given]


def _named(what: str) -> BeforeValidator:
    """Puts what a name of the file stands for in its place: of its `series` or of its `lines`."""

    def named(name: Any, info: ValidationInfo) -> Any:
        known = info.context[what] if info.context else {}
        require(isinstance(name, str) and name in known, "a name", f"be one of the {what}", name, allowed=known)
        return known[name]

    return BeforeValidator(named)


def _scope(given: Any, info: ValidationInfo) -> Any:
    """The file's own `where`, with what an entry says otherwise."""
    return {**info.context["where"], **given} if info.context and isinstance(given, Mapping) else given


NamedSeries = Annotated[Series, _named("series")]
SomeSeries = Annotated[tuple[NamedSeries, ...], Field(min_length=1), BeforeValidator(as_list)]
# A line of a printed table: `lengths` and `seconds`.
Line = Mapping[str, Any]
NamedLine = Annotated[Line, _named("lines")]
Scope = Annotated[Where, BeforeValidator(_scope), Field(default_factory=dict, validate_default=True)]


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
            why = ": " + ", ".join(filter(None, (found[0].row.status, found[0].row.reason))) if found else ""
            raise MissingRowsError(f"no times of {series.label} ({where}){why}")
        return timed

    def pairs(self, above: Series, below: Series, where: Where) -> list[Pair]:
        """Every pair of two series that were timed against each other.

        Raises:
            MissingRowsError: If there is none.
        """
        pairs = pairs_of(self.find(where, above), self.find(where, below))
        if not pairs:
            self.timed(where, above)
            self.timed(where, below)
            raise MissingRowsError(f"{above.label} and {below.label} were not timed in one group ({where})")
        return pairs

    def by_length(self, above: Series, below: Series, where: Where, needed: Sequence[int]) -> dict[int, Pair]:
        """The first pair of every length that has one, shortest first.

        Raises:
            MissingRowsError: If a needed length has none.
        """
        for length in needed:
            self.pairs(above, below, where.at(length))
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


def rows_of(pairs: Iterable[Pair]) -> list[Measured]:
    """All rows of some pairs."""
    return [each for pair in pairs for each in (pair.numerator, pair.denominator)]


class Trained(NamedTuple):
    """Figures of two trained variants, seed by seed, and their rows."""

    first: list[float]
    second: list[float]
    rows: list[Row]


def by_seed(
    rows: Iterable[Row], variants: Sequence[str], read: Callable[[Quality], tuple[Any, float] | None]
) -> dict[Any, Trained]:
    """What two trained variants have in each setting in which two seeds at least have both.

    Args:
        rows: Of a seed's several, the last counts.
        variants: Their names.
        read: The setting and the figure of a row; None: it is none of these.
    """
    found: dict[Any, tuple[dict[int, tuple[float, Row]], dict[int, tuple[float, Row]]]] = {}
    for row in rows:
        if row.quality is not None and row.quality.variant in variants and (figure := read(row.quality)) is not None:
            own = found.setdefault(figure[0], ({}, {}))[variants.index(row.quality.variant)]
            own[row.quality.seed] = figure[1], row
    trained = {}
    for setting, sides in found.items():
        seeds = sorted(set(sides[0]) & set(sides[1]))
        if len(seeds) > 1:
            first, second = ([side[seed][0] for seed in seeds] for side in sides)
            trained[setting] = Trained(first, second, [side[seed][1] for side in sides for seed in seeds])
    return trained


def _unusual(cell: Cell) -> tuple[bool, ...]:
    return cell.dtype != "float32", not cell.compiled, cell.execution != "latency"
