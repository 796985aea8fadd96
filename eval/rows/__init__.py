"""Rows: one measured fact each, with everything needed to repeat it; JSON lines, append-only."""

from eval.rows.cell import Cell
from eval.rows.schema import (
    Comparison,
    Correctness,
    CurvePoint,
    Machine,
    Memory,
    Quality,
    Row,
    Samples,
    Timing,
    Work,
    current_machine,
    machine_of,
)
from eval.rows.store import RowStore, only_writer, packed, read_rows, rows_file

__all__ = [
    "Cell",
    "Comparison",
    "Correctness",
    "CurvePoint",
    "Machine",
    "Memory",
    "Quality",
    "Row",
    "RowStore",
    "Samples",
    "Timing",
    "Work",
    "current_machine",
    "machine_of",
    "only_writer",
    "packed",
    "read_rows",
    "rows_file",
]
