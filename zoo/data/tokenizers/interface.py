"""What every tokenizer is: a table of the bytes that each token stands for, and a way to choose tokens for a text.

Decoding, streaming and byte counts follow from the table alone, hence

    decode(encode(x)) == x    and    sum(token_byte_lengths()[encode(x)]) == len(x.encode())

for every text x. Letters: V vocabulary.
"""

import abc
import codecs
import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from zoo.config import UserError, to_mapping
from zoo.data.corpora.document import Corpus
from zoo.data.tokenizers.chat_template import ChatTemplate
from zoo.data.tokenizers.exported import CHAT_TEMPLATE_FILE

# Beside it stands whatever file the kind of tokenizer needs.
TOKENIZER_FILE = "zoo_tokenizer.json"
# By this character pieces write a space, so that the character itself cannot be told from one.
SPACE = "\u2581"


class StreamingDetokenizer:
    """Text from tokens that arrive one at a time; a character is held back until all its bytes are there.

    The protocol is mlx-lm's: `reset`, `add_token`, `finalize`, `text`, `last_segment`, `tokens`.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """Starts empty; `token_bytes[i]` is what token i stands for."""
        self._token_bytes = token_bytes
        self.reset()

    def reset(self) -> None:
        """Forgets all tokens."""
        self.tokens: list[int] = []
        self.offset = 0
        self._pieces: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add_token(self, token: int) -> None:
        """Takes the next token."""
        self.tokens.append(token)
        self._pieces.append(self._decoder.decode(self._token_bytes[token]))

    def finalize(self) -> None:
        """Gives up bytes that are still held back: an unfinished character becomes U+FFFD."""
        self._pieces.append(self._decoder.decode(b"", final=True))

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._pieces)

    @property
    def last_segment(self) -> str:
        """The text since this was last asked for."""
        segment = "".join(self._pieces[self.offset :])
        self.offset = len(self._pieces)
        return segment


class Tokenizer(abc.ABC):
    """A tokenizer that loses nothing.

    Attributes:
        token_bytes_V: What each token stands for; empty for special tokens.
        eos_id: Ends a document in the data.
        pad_id: Fills rows up; never counted.
        mask_id: Hides a token from a model that has to guess it; None if the vocabulary has no such token.
        mask_text: How a prompt spells that token, for `encode_masked` alone: elsewhere it is text like any other.
        eos_text: How a chat template spells the end, for `encode_marked` alone, in which `start_id` stands first.
        chat_source: The chat template, or None.
        lossless: Whether the laws above hold; only a checkpoint's tokenizer can break them.
    """

    token_bytes_V: Sequence[bytes]
    lossless: bool = True
    eos_id: int
    pad_id: int
    mask_id: int | None
    mask_text: str = "[MASK]"
    eos_text: str = "</s>"
    chat_source: str | None = None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.token_bytes_V)

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Names everything that decides which tokens a text becomes."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones: text that looks like a special token is text.

        Raises:
            UserError: If the text has half a surrogate pair, which no UTF-8 can hold.
        """

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str], *, num_threads: int) -> list[np.ndarray]:
        """The same for many texts: int32 arrays."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes files into an existing folder, from which `load_tokenizer` makes an equal tokenizer."""

    @abc.abstractmethod
    def export(self, folder: Path) -> None:
        """Writes files into an existing folder, from which transformers and mlx-lm make this tokenizer.

        Raises:
            OSError: If they cannot be written.
        """

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end what a model writes: the end of a document, unless one from elsewhere ends otherwise too."""
        return frozenset({self.eos_id})

    @property
    def start_id(self) -> int:
        """Stands before a text: the end of the document before it, unless a model from elsewhere begins otherwise."""
        return self.eos_id

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a text that a model is to continue or judge: those of `encode`, after `start_id`."""
        return [self.start_id, *self.encode(text)]

    def encode_masked(self, text: str) -> list[int]:
        """The tokens of a prompt in which `mask_text` stands for `mask_id`, which must not be None."""
        assert self.mask_id is not None
        first, *others = text.split(self.mask_text)
        return [*self.encode_prompt(first), *(token for part in others for token in (self.mask_id, *self.encode(part)))]

    def encode_pair(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """A whole text, or two, for an encoder: the tokens, and 1 for each of those that belong to the second text."""
        first, second = (
            [*self.encode_prompt(text), self.eos_id],
            [] if pair is None else [*self.encode(pair), self.eos_id],
        )
        return [*first, *second], [0] * len(first) + [1] * len(second)

    def encode_marked(self, text: str) -> list[int]:
        """The tokens of a text that a chat template gave: what spells a special token is that token."""
        return self.encode_marked_with_starts(text)[0]

    def encode_marked_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of `encode_marked`, and the character of the text at which each begins."""
        tokens, starts, offset = [self.start_id], [0], 0
        for number, part in enumerate(text.split(self.eos_text)):
            if number:
                tokens.append(self.eos_id)
                starts.append(offset)
                offset += len(self.eos_text)
            ids = self.encode(part)
            ends = np.cumsum([len(character.encode()) for character in part])
            begins = np.cumsum([0, *(len(self.token_bytes_V[token]) for token in ids[:-1])])[: len(ids)]
            tokens += ids
            starts += (offset + np.searchsorted(ends, begins, side="right")).tolist()
            offset += len(part)
        return tokens, starts

    def chat_template(self) -> ChatTemplate | None:
        """The checkpoint's chat template, or None if it has none.

        Raises:
            UserError: If it is no text, or there are several and none is the default.
        """
        return None if self.chat_source is None else ChatTemplate(self.chat_source, {"eos_token": self.eos_text})

    def with_chat_template(self, source: str) -> Self:
        """This tokenizer with a chat template, which is saved with it."""
        tokenizer = copy.copy(self)
        tokenizer.chat_source = source
        return tokenizer

    def _save_chat_template(self, folder: Path) -> None:
        if self.chat_source is not None:
            (folder / CHAT_TEMPLATE_FILE).write_text(self.chat_source, encoding="utf-8")

    def for_a_new_model(self) -> "Tokenizer":
        """The tokenizer of a model that is trained here from the start, whose texts begin as the data does."""
        return self

    def within(self, vocab_size: int) -> "Tokenizer":
        """The tokenizer of a model that knows so many tokens: special ones beyond them, which it cannot read, are gone.

        Raises:
            UserError: If a token with a text, or one that begins or ends texts, is beyond them.
        """
        if self.vocab_size <= vocab_size:
            return self
        if any(self.token_bytes_V[vocab_size:]) or max(self.eos_id, self.start_id) >= vocab_size:
            sizes = f"{vocab_size} for {self.vocab_size} tokens"
            raise UserError(f"model.vocab_size must be at least the tokenizer's; got {sizes}")
        tokenizer = copy.copy(self)
        tokenizer.token_bytes_V = self.token_bytes_V[:vocab_size]
        tokenizer.pad_id = self.pad_id if self.pad_id < vocab_size else self.eos_id
        tokenizer.mask_id = self.mask_id if self.mask_id is None or self.mask_id < vocab_size else None
        return tokenizer

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; special ones have none, and bytes that are no UTF-8 become U+FFFD.

        Raises:
            UserError: If a number is no token.
        """
        pieces = []
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UserError(f"tokens must lie between 0 and {self.vocab_size - 1}; got {token}")
            pieces.append(self.token_bytes_V[token])
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token_byte_lengths(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, int32 [V]; 0 for special tokens."""
        return np.array([len(each) for each in self.token_bytes_V], dtype=np.int32)

    def streaming_detokenizer(self) -> StreamingDetokenizer:
        """A new detokenizer for tokens that arrive one at a time."""
        return StreamingDetokenizer(self.token_bytes_V)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig(abc.ABC):
    """A kind of tokenizer and its parameters.

    Attributes:
        kind: Name of the kind, as in `configs/tokenizer/<kind>.yaml`.
    """

    kind: ClassVar[str]

    @abc.abstractmethod
    def build(self, corpus: Corpus, *, cache_dir: Path) -> Tokenizer:
        """Makes the tokenizer.

        Args:
            corpus: What it is to be used on; some kinds learn from it.
            cache_dir: Where what was learnt is kept.

        Raises:
            UserError: If that is not possible.
        """

    def as_mapping(self) -> dict[str, Any]:
        """The plain mapping from which `tokenizer_config_from_mapping` builds an equal config."""
        return {"kind": self.kind, **to_mapping(self)}


def require_unicode(text: str) -> None:
    """Refuses text that UTF-8 cannot hold.

    Raises:
        UserError: Names the position.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"text must be Unicode; got a lone surrogate at character {error.start + 1}") from None


def encode_around_space(text: str, encode: Callable[[str], list[int]], space_ids: Sequence[int]) -> list[int]:
    """Encodes a text with U+2581 kept apart: `encode` gets what is between, `space_ids` stands for the character."""
    first, *others = text.split(SPACE)
    ids = encode(first)
    for part in others:
        ids += [*space_ids, *encode(part)]
    return ids
