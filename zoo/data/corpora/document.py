"""What every corpus gives: documents in a fixed order, each on one side of the line between training and validation."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Literal, Protocol

from zoo.config import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")
# A document that has to be cut is cut at an end of a line within this many characters, if there is one.
_SEARCHED = 2000


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
    """An opened corpus: what `DataConfig.open` returns.

    Attributes:
        validation_fraction: Share of the text that is held out if nothing else says what is.
        validation_field: Config path of what says which documents are held out; None if the fraction does.
    """

    @property
    def validation_fraction(self) -> float: ...

    @property
    def validation_field(self) -> str | None: ...

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
    """A corpus's documents that hold any text, with some of them held out if the hash held out none.

    Small corpora are why: of 20 documents a twentieth by hash is none at all in one corpus of three. Then the first
    document that is held in memory whole is held out, with all copies of it; and of a corpus that is one document its
    end, a share of `validation_fraction`.

    Raises:
        UserError: If there are several documents, all of one text.
    """
    cut = _cut_of_only_document(corpus) if corpus.validation_field is None else None
    if cut is not None:
        yield from _in_two(corpus, cut)
        return
    held: list[Document] = []
    seen_validation = seen_other = is_continued = False
    for document in _with_text(corpus):
        is_whole, is_continued = document.complete and not is_continued, not document.complete
        blank = document.complete and not document.text.strip()
        if document.split == "validation":
            seen_validation = seen_validation or not blank
        elif is_whole and not blank and not seen_validation and (not held or document.text == held[0].text):
            # Copies share one text in memory, however many there are.
            held.append(dataclasses.replace(document, text=held[0].text) if held else document)
            continue
        else:
            seen_other = seen_other or not blank
        if seen_validation:
            yield from held
            held = []
        yield document
    if seen_validation or corpus.validation_field is not None:
        yield from held
    elif len(held) > 1 and not seen_other:
        raise UserError(f"data.path must hold more than one text; all of its {len(held)} documents are the same")
    else:
        yield from (dataclasses.replace(document, split="validation") for document in held)


def _with_text(corpus: Corpus) -> Iterator[Document]:
    begun = False
    for document in corpus.documents():
        if document.text or begun or not document.complete:
            yield document
        begun = not document.complete


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cut:
    """Where a document ends for training and begins for validation: its number, and between which characters."""

    number: int
    low: int
    high: int


def _cut_of_only_document(corpus: Corpus) -> _Cut | None:
    """The cut through the only document with text; None if there are more, or the share is not even a character."""
    number = only = offset = first = last = 0
    found = False
    for document in _with_text(corpus):
        text = document.text
        if text.strip():
            if found and number != only:
                return None
            if not found:
                found, only, first = True, number, offset + len(text) - len(text.lstrip())
            last = offset + len(text.rstrip()) - 1
        offset += len(text)
        if document.complete:
            number, offset = number + 1, 0
    length = last + 1 - first
    if not found or length * corpus.validation_fraction < 1 or length < 2:
        return None
    # Between the first and the last there is text on both sides.
    length = last + 1
    high = min(max(round(length * (1 - corpus.validation_fraction)), first + 1), last)
    return _Cut(number=only, low=max(high - max(length - high, min(_SEARCHED, high - high // 4)), first + 1), high=high)


def _in_two(corpus: Corpus, cut: _Cut) -> Iterator[Document]:
    """The documents, that of the cut as two."""
    number = offset = 0
    split: Split = "train"
    for document in _with_text(corpus):
        start, offset = offset, offset + len(document.text)
        if number == cut.number and split == "train" and cut.high < offset:
            place = _boundary(document.text, max(cut.low - start, 0), cut.high - start)
            yield dataclasses.replace(document, text=document.text[:place], split="train", complete=True)
            split = "validation"
            yield dataclasses.replace(document, text=document.text[place:], split=split)
        else:
            yield dataclasses.replace(document, split=split if number == cut.number else "train")
        if document.complete:
            number, offset = number + 1, 0


def _boundary(text: str, low: int, high: int) -> int:
    """The last end of a paragraph, else of a line, else of a word, between two places; else the latter."""
    for end in ("\n\n", "\n", " "):
        place = text.rfind(end, low, high)
        if place >= 0:
            return place + len(end)
    return high
