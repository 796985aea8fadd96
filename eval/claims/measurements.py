"""Rows of one device, found by what they measured, and paired where they were timed in the same rounds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from eval.query import Measured, Pair, by_device, pairs_of
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
    """One line of a figure: a mechanism, how it is computed, and those of its parameters that matter."""

    label: str
    variant: str | None = Field(None, description="the whole name of a cell's series, for what is none of a mechanism")
    mechanism: str | None = None
    implementation: str | None = None
    parameters: Mapping[str, int] = {}
    num_kv_heads: int | None = Field(None, description="what a softmax variant asks for; none: the model's own number")
    causal: bool | None = Field(None, description="of the cell; none: either")

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
        there = {**vars(cell), "num_kv_heads": cell.num_kv_heads or cell.num_heads}
        in_model = self.model is None or self.model in (cell.model or "")
        return in_model and all(value in (None, there[name]) for name, value in self if name != "model")

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


NamedSeries = Annotated[Series, _named("series")]
SomeSeries = Annotated[tuple[NamedSeries, ...], Field(min_length=1), BeforeValidator(as_list)]
# A line of a printed table: seconds at each length.
Line = Mapping[int, float]
NamedLine = Annotated[Line, _named("lines")]
# Figures of two trained variants, seed by seed, and their rows.
Trained = tuple[list[float], list[float], list[Row]]


class Measurements:
    """The rows of one device, the one with most speed rows: devices never mix."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Keeps the newest row of each identity."""
        devices = by_device(sorted(rows, key=lambda row: (row.recorded_at, row.identity)))
        self.rows = next(iter(devices.values()), [])
        self.speed = [Measured(row=row, cell=row.cell) for row in self.rows if row.cell]
        self.device, self.backend = None, None
        if self.rows:
            self.device, self.backend = self.rows[0].machine.device, self.rows[0].machine.backend

    def find(self, where: Where, series: Series | None = None) -> list[Measured]:
        """Speed rows, of one series or any, whatever their status, A/A controls aside; plain settings first."""
        there = [each for each in self.speed if each.cell.role != "control" and where.holds(each.cell)]
        return sorted((each for each in there if series is None or series.holds(each.cell)), key=_unusual)

    def timed(self, where: Where, series: Series) -> Measured:
        """The first that has times; without any, a MissingRowsError."""
        found = self.find(where, series)
        timed = next((each for each in found if each.timing is not None), None)
        if timed is None:
            why = ": " + ", ".join(filter(None, (found[0].row.status, found[0].row.reason))) if found else ""
            raise MissingRowsError(f"no times of {series.label} ({where}){why}")
        return timed

    def pairs(self, above: Series, below: Series, where: Where) -> list[Pair]:
        """Every pair of two series that were timed against each other; without any, a MissingRowsError."""
        pairs = pairs_of(self.find(where, above), self.find(where, below))
        if not pairs:
            self.timed(where, above)
            self.timed(where, below)
            raise MissingRowsError(f"{above.label} and {below.label} were not timed in one group ({where})")
        return pairs

    def by_length(self, above: Series, below: Series, where: Where, needed: Sequence[int]) -> dict[int, Pair]:
        """The first pair of every length that has one, shortest first; a MissingRowsError if a needed one has none."""
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

    def by_seed(
        self, variants: Sequence[str], read: Callable[[Quality], tuple[Any, float] | None]
    ) -> dict[Any, Trained]:
        """What two trained variants have in each setting in which two seeds at least have both.

        `read` tells the setting and the figure of a row, or None if it is none of these. Of a seed's several rows the
        last counts, and what an evaluation says counts before a training's own last value.
        """
        found: dict[Any, dict[int, dict[str, tuple[float, Row]]]] = {}
        for row in sorted(self.rows, key=lambda row: row.quality is None or not row.quality.is_of_training):
            if row.quality and row.quality.variant in variants and (figure := read(row.quality)) is not None:
                own = found.setdefault(figure[0], {}).setdefault(row.quality.seed, {})
                own[row.quality.variant] = figure[1], row
        trained = {}
        for setting, seeds in found.items():
            both = [own for _, own in sorted(seeds.items()) if len(own) == 2]
            if len(both) > 1:
                first, second = ([own[variant][0] for own in both] for variant in variants)
                trained[setting] = first, second, [row for own in both for _, row in own.values()]
        return trained


def variant_kv_heads(cell: Cell) -> int | None:
    """Key/value heads that a cell's variant asks for; None where it leaves them to the model."""
    return resolved_kv_heads(cell.attention_mapping, num_heads=cell.num_heads, num_kv_heads=None)


def rows_of(pairs: Iterable[Pair]) -> list[Measured]:
    """All rows of some pairs."""
    return [each for pair in pairs for each in (pair.numerator, pair.denominator)]


def _unusual(each: Measured) -> tuple[bool, ...]:
    return each.cell.dtype != "float32", not each.cell.compiled, each.cell.execution != "latency"
