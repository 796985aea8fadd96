"""Nothing from a file is interpreted: the one function for each language that a report is written in.

HTML is escaped by Jinja, SVG by matplotlib. What neither knows of is here: control characters and those that turn a
line's direction, Markdown, cells of spreadsheets, and labels of figures.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel

from eval.rows import Row
from zoo.config.errors import printable

# More would leave a figure no room.
_LONGEST_LABEL = 60
_MARKUP = re.compile(
    r"[\\`*~|$]|\](?=\s*[(\[])|\b_|_\b|(?<=\b[Hh][Tt][Tt][Pp]):|(?<=\b[Hh][Tt][Tt][Pp][Ss]):|(?<=\b[Ww]{3})\.",
)
# Spreadsheets take these for a formula, also behind a space; a number is none.
_FORMULA = re.compile(r"\s*[=@＝＠]|\s*[-+＋－](?!\d+(\.\d+)?\Z)")

# Texts that are JSON keep its letters.
_JSON = ("attention", "settings", "surgery")

ModelT = TypeVar("ModelT", bound=BaseModel)


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
    """A name as code, unless it has characters that would end the code or the cell that holds it."""
    return Markdown(f"`{name}`") if re.fullmatch(r"[\w ,.=()+-]+", name) else name


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
    return [_plain_model(row, plain) for row in rows]


def _plain_model(model: ModelT, plain: Callable[[str], str]) -> ModelT:
    values = {name: value for name, value in model if name not in _JSON}
    changes = {name: new for name, value in values.items() if (new := _plain(value, plain)) is not value}
    return model.model_copy(update=changes) if changes else model


def _plain(value: Any, plain: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        new = plain(value)
        return value if new == value else new
    if isinstance(value, BaseModel):
        return _plain_model(value, plain)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [plain(each) for each in value]
    return value
