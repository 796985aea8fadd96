"""Token shards: the tokens of one split in one memory-mapped array, with where each document ends and came from.

    eos | document 0 … eos | document 1 … eos | …

The end token before the first document lets every document be predicted from its first token on. Files of a split:
`<split>.tokens` (little-endian uint16, or uint32 for large vocabularies), `<split>.ends` (int64: index after each
document's end token), `<split>.sources` (UTF-8 names) and `<split>.source_ends` (int64 offsets into it).

Letters: T tokens of the split, N documents, R rows of a batch.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import IO

import numpy as np

from zoo.config import UserError
from zoo.data.corpora import Split
from zoo.data.tokenizers import Tokenizer

_SUFFIXES = ("tokens", "ends", "sources", "source_ends")
_OFFSET = np.dtype("<i8")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenSplit:
    """The tokens of a split.

    Attributes:
        name: "train" or "validation".
        tokens_T: uint16 or uint32, memory-mapped; the first one is the end token.
        document_ends_N: int64, memory-mapped: index in `tokens_T` after each document's end token.
        tokenizer: What made the tokens.
    """

    name: Split
    tokens_T: np.ndarray
    document_ends_N: np.ndarray
    tokenizer: Tokenizer
    _sources: np.ndarray
    _source_ends_N: np.ndarray

    @property
    def num_documents(self) -> int:
        """N."""
        return len(self.document_ends_N)

    def document_at(self, index: int) -> int:
        """Number of the document to which the token at an index of `tokens_T` belongs."""
        return int(np.searchsorted(self.document_ends_N, max(index, 1), side="right"))

    def source(self, document: int) -> str:
        """Where a document came from."""
        start = 0 if document == 0 else int(self._source_ends_N[document - 1])
        return self._sources[start : int(self._source_ends_N[document])].tobytes().decode("utf-8")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest type that holds every token."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


class ShardWriter(contextlib.ExitStack):
    """Writes the files of a split, one document after another; nothing is kept in memory."""

    def __init__(self, folder: Path, split: Split, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._files: dict[str, IO[bytes]] = {
            suffix: self.enter_context((folder / f"{split}.{suffix}").open("wb")) for suffix in _SUFFIXES
        }
        self.num_tokens = self.num_documents = 0
        self._write_tokens(np.array([tokenizer.eos_id]))

    def add(self, tokens: np.ndarray, source: str, *, complete: bool) -> None:
        """Adds tokens of a document, and its end token if it is complete."""
        self._write_tokens(tokens)
        if complete:
            self._write_tokens(np.array([self._tokenizer.eos_id]))
            self.num_documents += 1
            # A file's name need not be UTF-8.
            self._files["sources"].write(source.encode("utf-8", errors="backslashreplace"))
            self._files["ends"].write(np.array([self.num_tokens], dtype=_OFFSET).tobytes())
            self._files["source_ends"].write(np.array([self._files["sources"].tell()], dtype=_OFFSET).tobytes())

    def _write_tokens(self, tokens: np.ndarray) -> None:
        self._files["tokens"].write(tokens.astype(self._dtype).tobytes())
        self.num_tokens += len(tokens)


def open_split(folder: Path, name: Split, tokenizer: Tokenizer, *, num_tokens: int) -> TokenSplit:
    """Maps the files of a split into memory.

    Args:
        folder: Where a `ShardWriter` wrote them.
        name: The split.
        tokenizer: What made the tokens.
        num_tokens: How many there must be.

    Raises:
        UserError: If they are damaged.
    """
    tokens_T = _map(folder / f"{name}.tokens", token_dtype(tokenizer.vocab_size))
    ends_N = _map(folder / f"{name}.ends", _OFFSET)
    sources = _map(folder / f"{name}.sources", np.dtype(np.uint8))
    source_ends_N = _map(folder / f"{name}.source_ends", _OFFSET)
    whole = len(tokens_T) == num_tokens == ends_N[-1] and len(sources) == source_ends_N[-1]
    if not whole or len(ends_N) != len(source_ends_N):
        raise UserError(f"data.cache_dir: {folder} must be whole; remove this folder, and it is made again")
    return TokenSplit(
        name=name,
        tokens_T=tokens_T,
        document_ends_N=ends_N,
        tokenizer=tokenizer,
        _sources=sources,
        _source_ends_N=source_ends_N,
    )


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    try:
        return np.memmap(path, dtype=dtype, mode="r")
    except (OSError, ValueError) as error:
        # A missing or an empty file, or one cut off inside a number.
        raise UserError(
            f"data.cache_dir: {path} must be whole ({error}); remove the folder {path.parent}, and it is made again"
        ) from error
