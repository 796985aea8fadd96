"""What data is, known by its content: never by a name, a spelling, a folder, a format or a time."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from zoo.config import from_mapping, require, to_mapping

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The content of both splits; equal exactly when the documents of a split are equal and in the same order.

    Attributes:
        train: SHA-256 of the documents to learn from, in hexadecimal digits.
        validation: The same of those held out.
    """

    train: str
    validation: str

    def __post_init__(self) -> None:
        for field, digest in (("train", self.train), ("validation", self.validation)):
            require(_DIGEST.fullmatch(digest) is not None, field, "be 64 hexadecimal digits", digest)

    def as_mapping(self) -> dict[str, str]:
        """JSON-ready; `data_identity_from_mapping` turns it back."""
        return to_mapping(self)


def data_identity_from_mapping(mapping: Mapping[str, Any], *, path: str = "data.identity") -> DataIdentity:
    """The identity that a checkpoint, a record or a cache holds.

    Raises:
        UserError: On a missing or an unknown key, or a value that is no digest.
    """
    return from_mapping(DataIdentity, mapping, path=path)


class TextDigest:
    """The digest of one split, taken while its documents pass.

    Each document's UTF-8 is followed by its length, eight bytes: read from the end, that has one meaning only. The
    length stands behind, since that of a document in parts is known last.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._length = 0

    def add(self, text: str, *, complete: bool) -> None:
        """Takes a document, or a part of one; `complete` if the document ends with it."""
        content = text.encode()
        self._digest.update(content)
        self._length += len(content)
        if complete:
            self._digest.update(self._length.to_bytes(8, "big"))
            self._length = 0

    def hexdigest(self) -> str:
        """The digest of all documents so far."""
        return self._digest.hexdigest()
