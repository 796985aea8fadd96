"""How a split is cut into rows: windows over the stream of all documents, or one document a row.

Letters: R rows asked for, L row length.
"""

import abc
from typing import ClassVar

import numpy as np

from zoo.data.corpora.config import Packing
from zoo.data.shards import TokenSplit


class Rows(abc.ABC):
    """A fixed list of rows of a split.

    Attributes:
        num_rows: How many.
        num_full_rows: How many, from the first on, are fit to train on.
        is_padded: Whether rows fit to train on may be shorter than L.
    """

    num_rows: int
    num_full_rows: int
    is_padded: ClassVar[bool]

    def __init__(self, split: TokenSplit, length: int) -> None:
        self._split, self._length = split, length

    @abc.abstractmethod
    def bounds(self, row: int) -> tuple[int, int]:
        """First index in the split's tokens, and the index after the last: at most L + 1 tokens."""

    def take(self, rows_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of rows.

        Returns:
            int32 [R, L + 1]: each token but the last is an input, each but the first a target; padded on the right.
            int32 [R]: how many inputs (and targets) are no padding.
        """
        tokens = np.full((len(rows_R), self._length + 1), self._split.tokenizer.pad_id, dtype=np.int32)
        counts_R = np.empty(len(rows_R), dtype=np.int32)
        for index, row in enumerate(rows_R):
            start, end = self.bounds(int(row))
            tokens[index, : end - start] = self._split.tokens_T[start:end]
            counts_R[index] = end - start - 1
        # A row that begins with the end of a document begins the next one.
        tokens[tokens[:, 0] == self._split.tokenizer.eos_id, 0] = self._split.tokenizer.start_id
        return tokens, counts_R


class StreamRows(Rows):
    """Windows next to each other; the last one may be shorter, and is only for validation."""

    is_padded = False

    def __init__(self, split: TokenSplit, length: int) -> None:
        super().__init__(split, length)
        targets = len(split.tokens_T) - 1
        self.num_full_rows, self.num_rows = targets // length, -(-targets // length)

    def bounds(self, row: int) -> tuple[int, int]:
        start = row * self._length
        return start, min(start + self._length + 1, len(self._split.tokens_T))


class DocumentRows(Rows):
    """Each document from the end token before it to its own; one longer than L takes several rows."""

    is_padded = True

    def __init__(self, split: TokenSplit, length: int) -> None:
        super().__init__(split, length)
        targets_N = np.diff(split.document_ends_N, prepend=1)
        self._row_ends_N = np.cumsum(-(-targets_N // length))
        self.num_rows = self.num_full_rows = int(self._row_ends_N[-1])

    def bounds(self, row: int) -> tuple[int, int]:
        document = int(np.searchsorted(self._row_ends_N, row, side="right"))
        first_row = 0 if document == 0 else int(self._row_ends_N[document - 1])
        document_start = 1 if document == 0 else int(self._split.document_ends_N[document - 1])
        start = document_start - 1 + (row - first_row) * self._length
        return start, min(start + self._length + 1, int(self._split.document_ends_N[document]))


ROWS: dict[Packing, type[StreamRows] | type[DocumentRows]] = {"stream": StreamRows, "documents": DocumentRows}
