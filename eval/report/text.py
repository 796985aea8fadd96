"""Texts of a report: numbers with their units and intervals, tables, and escapes for each language it is written in.

Nothing from a file is interpreted. HTML is escaped by Jinja, SVG by matplotlib. What neither knows of is here: control
characters and those that turn a line's direction, Markdown, cells of spreadsheets, and labels of figures.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from eval.rows import Row
from eval.statistics import Contrast
from zoo.config.errors import printable

NOTHING = "–"
# More would leave a figure no room.
_LONGEST_LABEL = 60
_MARKUP = re.compile(
    r"[\\`*~|$]|\](?=\s*[(\[])|\b_|_\b|(?<=\b[Hh][Tt][Tt][Pp]):|(?<=\b[Hh][Tt][Tt][Pp][Ss]):|(?<=\b[Ww]{3})\.",
)
# Spreadsheets take these for a formula, also behind a space; a number is none.
_FORMULA = re.compile(r"\s*[=@＝＠]|\s*[-+＋－](?!\d+(\.\d+)?\Z)")
# Texts that are JSON keep its letters.
_JSON = ("attention", "settings", "surgery")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def markdown(text: object) -> str:
    """A text as Markdown shows it, character by character."""
    if isinstance(text, Markdown):
        return text
    escaped = _MARKUP.sub(r"\\\g<0>", printable(str(text)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def code(name: str) -> str:
    """A name as code in Markdown, unless it has characters that would end the code or the cell that holds it."""
    return Markdown(f"`{name}`") if re.fullmatch(r"[\w ,.=()+-]+", name) else markdown(name)


def spreadsheet(value: object) -> object:
    """A value as a cell that no program takes for a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) else text


def label(text: str) -> str:
    """A name as figures have it: short, and never one of those that matplotlib leaves out."""
    text = printable(text)
    if len(text) > _LONGEST_LABEL:
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        text = f"{text[: _LONGEST_LABEL - 8]}… {digest}"
    return f" {text}" if text.startswith("_") or not text else text


def plain_rows(rows: Iterable[Row], plain: Callable[[str], str] = printable) -> list[Row]:
    """The rows with every text but the attention's JSON made plain."""
    return [_plain(row, plain) for row in rows]


def _plain(value: Any, plain: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain(each, plain) for each in value]
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _plain(each, plain) for name, each in value if name not in _JSON})
    return value


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, for a page and for Markdown alike.

    Attributes:
        lines: A text for each column by its name, of all lines the same; a column `variant` is code in Markdown.
        note: What a reader must know of it; empty for nothing.
    """

    lines: Sequence[Mapping[str, str]]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(list(line) == list(self.lines[0]) for line in self.lines), "every line has a text for every column"

    def markdown(self) -> Markdown:
        """The table as Markdown, of one line at least."""
        columns = list(self.lines[0])
        ways = {column: code if column == "variant" else markdown for column in columns}
        lines = [[way(line[column]) for column, way in ways.items()] for line in self.lines]
        head = [list(map(markdown, columns)), ["---"] * len(columns)]
        return Markdown("\n".join(f"| {' | '.join(line)} |" for line in [*head, *lines]))


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their keys, joined with dots."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, and never an exponent below a billion."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def interval(figure: Contrast | None) -> str:
    """A number and its interval; the number alone where there is none."""
    return NOTHING if figure is None else f"{number(figure.value)}{ends(figure.low, figure.high)}"


def ends(low: float | None, high: float | None) -> str:
    """An interval's ends as they follow a number, of which one may be open; nothing without any."""
    told = ["…" if end is None else number(end) for end in (low, high)]
    return "" if low is None and high is None else f" [{', '.join(told)}]"


def num_bytes(value: float | None) -> str:
    """A size in the binary unit that suits it."""
    if value is None:
        return NOTHING
    if abs(value) < 1024:
        return f"{value:.0f} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log2(abs(value)) // 10), len(units))
    return f"{number(value / 1024**power)} {units[power - 1]}"


def as_text(value: object) -> str:
    """Anything, for tables whose columns are not known beforehand."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)
