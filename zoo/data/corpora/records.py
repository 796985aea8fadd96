"""What corpora of records have in common: each record's text stands in one field, and is held out by its hash."""

import dataclasses
from collections.abc import Iterable

from zoo.config import UserError, require
from zoo.data.corpora.file_corpus import FilesConfig

_LISTED = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordsConfig(FilesConfig):
    """Files of records.

    Attributes:
        field: Which field of a record holds the text.
    """

    field: str = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.field != "", "field", "name a field", self.field)


def require_field(field: str, present: Iterable[str], where: str) -> None:
    """Refuses records without the field.

    Raises:
        UserError: Names the place and the fields there are.
    """
    names = sorted(map(str, present))
    if field not in names:
        listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        raise UserError(
            f"{where}: data.field must be a field of the records; got {field!r} (choices: {listed or 'none'})"
        )


def require_text(value: object, field: str, where: str) -> str:
    """Refuses a field that holds no text.

    Raises:
        UserError: Names the place.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} must hold a text; got {_shortened(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half a surrogate pair, which no Unicode text has.
        raise UserError(
            f"{where}: field {field!r} must hold Unicode text; got a lone surrogate at character {error.start + 1}"
        ) from None
    return value


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
