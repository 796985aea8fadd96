"""What every corpus gives: documents in a fixed order, each on one side of the line between training and validation."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Literal, Protocol

Split = Literal["train", "validation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A document, or a part of one that is too long to be held at once.

    Attributes:
        text: Any Unicode text.
        source: Where it stands, for messages: a file, with line or row where it holds several documents.
        split: Which split it belongs to.
        complete: Whether the document ends here; False if the next one of the iteration continues it.
    """

    text: str
    source: str
    split: Split
    complete: bool = True


class Corpus(Protocol):
    """An opened corpus: what `DataConfig.open` returns."""

    def fingerprint(self) -> str:
        """Names the content: equal for equal documents, splits and order, whatever folder they lie in."""

    def documents(self) -> Iterator[Document]:
        """All documents, always in the same order.

        Raises:
            UserError: On content that cannot be read; names file and line.
        """


def hash_of(key: str) -> float:
    """A number in [0, 1) that follows from the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest(), "big") / 2**64


def split_of(key: str, validation_fraction: float) -> Split:
    """Chooses a document's split by a hash, so that it never depends on which other documents there are.

    Args:
        key: What identifies the document: a relative path, or its text.
        validation_fraction: Share that is held out.
    """
    return "validation" if hash_of(key) < validation_fraction else "train"


def documents_of(corpus: Corpus) -> Iterator[Document]:
    """A corpus's documents that hold any text, with one of them held out if the hash held out none.

    Small corpora are why: of 20 documents a twentieth by hash is none at all in one corpus of three.
    """
    held: Document | None = None
    seen_first = seen_validation = False
    for document in corpus.documents():
        if document.complete and not document.text:
            continue
        if document.split == "validation":
            seen_validation = True
        elif not seen_first and document.complete:
            seen_first, held = True, document
            continue
        seen_first = True
        if held is not None and seen_validation:
            yield held
            held = None
        yield document
    if held is not None:
        yield held if seen_validation else dataclasses.replace(held, split="validation")
