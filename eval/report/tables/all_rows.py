"""Every row as one flat line, for the page's sortable table and for CSV."""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.report.plain import spreadsheet
from eval.report.tables.coverage import section_of
from eval.report.wording import NOTHING, interval, num_bytes, number, percent, plain, seconds
from eval.rows import Row

Value = str | int | float | bool | None


def flat(row: Row) -> dict[str, Value]:
    """Every single value of a row under a dotted name; lists (raw samples, curves) are left to the JSON."""
    return dict(_flattened(row.model_dump(), ""))


def _flattened(mapping: Mapping[str, Any], prefix: str) -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            found += _flattened(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found.append((f"{prefix}{key}", value))
        elif key == "flags":
            found.append((f"{prefix}{key}", " ".join(value)))
    return found


def rows_csv(rows: Sequence[Row]) -> str:
    """All rows as CSV, a column for every value that any row has."""
    lines = [flat(row) for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name, value in line.items() if value is not None))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the page's table.

    Attributes:
        name: Its heading.
        key: Dotted name of the value, as `flat` has it.
        text: How the value is written, with the ends of its interval where it has them.
        ends: Dotted names of the interval's ends.
    """

    name: str
    key: str
    text: Callable[..., str]
    ends: tuple[str, ...] = ()


def _text(value: Value) -> str:
    return NOTHING if value is None or value == "" else str(value)


_ENDS_OF_TIME = ("timing.interval_low", "timing.interval_high")
_ENDS_OF_RATIO = ("comparison.ratio_low", "comparison.ratio_high")
COLUMNS = (
    Column(name="status", key="status", text=lambda value: str(value).replace("_", " ")),
    Column(name="section", key="section", text=_text),
    Column(name="variant", key="variant", text=_text),
    Column(name="L", key="length", text=_text),
    Column(name="median", key="timing.median_seconds", text=seconds, ends=_ENDS_OF_TIME),
    Column(name="over baseline", key="comparison.ratio", text=interval, ends=_ENDS_OF_RATIO),
    Column(name="same function", key="comparison.same_function", text=plain),
    Column(name="value", key="quality.value", text=number),
    Column(name="± s.e.", key="quality.standard_error", text=number),
    Column(name="metric", key="quality.metric", text=_text),
    Column(name="setting", key="setting", text=_text),
    Column(name="seed", key="quality.seed", text=_text),
    Column(name="peak", key="memory.peak_bytes", text=num_bytes),
    Column(name="peak by formula", key="memory.analytic_bytes", text=num_bytes),
    Column(name="cache", key="memory.cache_bytes", text=num_bytes),
    Column(name="cache by formula", key="memory.analytic_cache_bytes", text=num_bytes),
    Column(name="utilisation", key="work.utilisation", text=percent),
    Column(name="of bandwidth", key="work.bandwidth_share", text=percent),
    Column(name="graph nodes", key="work.graph_nodes", text=_text),
    Column(name="error", key="correctness.max_error", text=number),
    Column(name="group", key="cell.group", text=_text),
    Column(name="level", key="cell.level", text=_text),
    Column(name="mode", key="cell.mode", text=_text),
    Column(name="model", key="model", text=_text),
    Column(name="B", key="cell.batch_size", text=_text),
    Column(name="causal", key="cell.causal", text=plain),
    Column(name="dtype", key="cell.dtype", text=_text),
    Column(name="device", key="machine.device", text=_text),
    Column(name="commit", key="machine.commit", text=lambda value: _text(value)[:10]),
    Column(name="flags", key="flags", text=lambda value: _text(value).replace("_", " ")),
    Column(name="reason", key="reason", text=_text),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLine:
    """A line of the page's table.

    Attributes:
        status: Of the row.
        section: Its suite or task.
        cells: (text, sort key) of each column; the key of a number is its digits, that of a text is empty.
    """

    status: str
    section: str
    cells: tuple[tuple[str, str], ...]


def shown_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns in which any row has something."""
    lines = [_joined(row) for row in rows]
    return tuple(column for column in COLUMNS if any(line.get(column.key) not in (None, "") for line in lines))


def row_lines(rows: Sequence[Row], columns: Sequence[Column]) -> list[RowLine]:
    """Every row, in order."""
    return [_line(row, columns) for row in rows]


def _line(row: Row, columns: Sequence[Column]) -> RowLine:
    values = _joined(row)
    cells = []
    for column in columns:
        value = values.get(column.key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        ends = (values.get(end) for end in column.ends)
        text = NOTHING if value is None else column.text(value, *ends)
        cells.append((text, repr(value) if is_number else ""))
    return RowLine(status=row.status, section=section_of(row), cells=tuple(cells))


def _joined(row: Row) -> dict[str, Value]:
    """The flat values, with those that speed and quality rows share in one place."""
    values = flat(row)
    quality = row.quality
    shared: dict[str, Value] = {"section": section_of(row)}
    for name in ("variant", "model", "length"):
        own = values.get(f"cell.{name}")
        shared[name] = values.get(f"quality.{name}") if own is None else own
    if quality is not None:
        parts = [quality.data, quality.regime.replace("_", " ")]
        parts += [f"{quality.num_pairs} pairs"] if quality.num_pairs is not None else []
        parts += [f"depth {quality.depth:g}"] if quality.depth is not None else []
        parts += [f"from position {quality.position}"] if quality.position is not None else []
        shared["setting"] = ", ".join(parts)
    return {**values, **shared}
