"""SentencePiece, trained on the corpus: byte-pair encoding that falls back to bytes.

Kudo and Richardson, "SentencePiece", https://arxiv.org/abs/1808.06226. Where we deviate from its defaults, and why:
nothing is normalised and no space is added, so that no text is lost; pieces may hold spaces, line ends and several
words, since indentation is a large part of source code; and U+2581, by which SentencePiece writes a space, is
encoded by its bytes, which its own decoder would turn into a space.
"""

import dataclasses
import hashlib
import heapq
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import sentencepiece

from zoo.config import UserError, require, require_within
from zoo.data.cache import cached_folder, key_of
from zoo.data.corpora import Corpus, documents_of
from zoo.data.tokenizers.exported import after_end, byte_pairs, special_tokens, write_tokenizer
from zoo.data.tokenizers.interface import (
    SPACE,
    TOKENIZER_FILE,
    Tokenizer,
    TokenizerConfig,
    encode_around_space,
    require_unicode,
)
from zoo.data.tokenizers.pieces import implied_merges

# A change of what is learnt, or of how a folder of the cache is written, makes older ones stale.
_FORMAT = 2
MODEL_FILE = "tokenizer.model"
# Four times the largest vocabularies there are; and what SentencePiece itself takes.
_MOST_TOKENS, _MOST_PIECE_LENGTH = 1_000_000, 512
# The vocabulary before anything is learnt: 256 bytes; unknown (never used), end, padding, mask.
_NUM_FIXED = 260
# Longest text that is learnt from at once, in characters; pieces are far shorter.
_CHUNK_LENGTH = 2048
# A sample is drawn from this many times its size at the head of the corpus, so that its cost is bounded.
_SCANNED_PER_SAMPLED = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceConfig(TokenizerConfig):
    """SentencePiece, trained on the corpus's training split.

    Attributes:
        vocab_size: Most tokens, 260 fixed ones included; a small corpus may give fewer.
        max_piece_length: Most characters of a piece.
        sample_bytes: Text to learn from, about this much, drawn from all over the corpus.
        character_coverage: Share of the characters that get pieces of their own if the vocabulary has room.
    """

    kind: ClassVar[str] = "sentencepiece"

    vocab_size: int = 2048
    max_piece_length: int = 16
    sample_bytes: int = 10_000_000
    character_coverage: float = 0.9995

    def __post_init__(self) -> None:
        require_within(self, 2 * _NUM_FIXED, _MOST_TOKENS, "vocab_size")
        require_within(self, 1, _MOST_PIECE_LENGTH, "max_piece_length")
        require(self.sample_bytes >= 1, "sample_bytes", "be at least 1", self.sample_bytes)
        covered = 0 < self.character_coverage <= 1
        require(covered, "character_coverage", "be above 0 and at most 1", self.character_coverage)

    def build(self, corpus: Corpus, *, cache_dir: Path) -> "SentencePieceTokenizer":
        key = key_of("sentencepiece", _FORMAT, sentencepiece.__version__, self, corpus.fingerprint())

        def write(folder: Path) -> None:
            SentencePieceTokenizer(_train(self, corpus)).save(folder)

        folder = cached_folder(cache_dir, "tokenizers", key, write)
        return SentencePieceTokenizer((folder / MODEL_FILE).read_bytes())


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model."""

    eos_id = 1
    pad_id = 2
    mask_id = 3

    def __init__(self, model: bytes) -> None:
        """Reads a model that `SentencePieceConfig` trained.

        Raises:
            UserError: If the bytes are no such model.
        """
        must = f"tokenizer: {MODEL_FILE} must be a SentencePiece model as it is trained here"
        self._model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self.token_bytes_V = [self._bytes_of(token) for token in range(self._processor.get_piece_size())]
            self._space_ids = [self._processor.piece_to_id(f"<0x{value:02X}>") for value in SPACE.encode()]
            # A corpus without a space teaches none, and SentencePiece would spell it by the bytes of its mark.
            self._knows_space = not self._processor.is_unknown(self._processor.piece_to_id(SPACE))
        # Of bytes that are no model it raises whatever its parts happen to meet.
        except Exception as error:
            raise UserError(f"{must}; {' '.join(str(error).split())}") from error
        if not self._keeps_the_laws():
            raise UserError(f"{must}: special tokens first, a token for each byte, every text kept as it is")

    @property
    def fingerprint(self) -> str:
        return f"sentencepiece-{hashlib.sha256(self._model).hexdigest()}"

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        return encode_around_space(text, self._encode_marked, self._space_ids)

    def encode_batch(self, texts: Sequence[str], *, num_threads: int) -> list[np.ndarray]:
        apart = (SPACE,) if self._knows_space else (SPACE, " ")
        plain = [text for text in texts if not any(each in text for each in apart)]
        encoded = iter(self._processor.encode(plain, num_threads=num_threads))
        lists = (self.encode(text) if any(each in text for each in apart) else next(encoded) for text in texts)
        return [np.array(ids, dtype=np.int32) for ids in lists]

    def _encode_marked(self, text: str) -> list[int]:
        if self._knows_space or " " not in text:
            return self._processor.encode(text)
        first, *others = (self._processor.encode(part) for part in text.split(" "))
        space = self._processor.piece_to_id("<0x20>")
        return [*first, *(token for part in others for token in (space, *part))]

    def save(self, folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(self._model)
        self._save_chat_template(folder)
        (folder / TOKENIZER_FILE).write_text(json.dumps({"kind": SentencePieceConfig.kind}), encoding="utf-8")

    def export(self, folder: Path) -> None:
        pieces = {token: self._processor.id_to_piece(token) for token in range(self.vocab_size)}
        learnt = {token: each for token, each in pieces.items() if self.token_bytes_V[token] and token >= _NUM_FIXED}
        # With spaces as they are, the mark that stands for them here is a character without a piece, as in `encode`.
        spelled = {token: piece.replace(SPACE, " ") for token, piece in learnt.items()}
        # A piece can be spelled so; none is spelled as SentencePiece itself names its special tokens.
        mask = self.mask_text if self.mask_text not in spelled.values() else pieces[self.mask_id]
        special = {self.eos_text: self.eos_id, "<pad>": self.pad_id, mask: self.mask_id, "<unk>": 0}
        fixed = {piece: token for token, piece in pieces.items() if token not in (*spelled, *special.values())}
        merges = implied_merges({spelled[token]: self._processor.get_score(token) for token in spelled})
        description = {
            "added_tokens": special_tokens(special),
            "post_processor": after_end(self.eos_text, self.eos_id),
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": byte_pairs(
                {**special, **fixed, **{piece: token for token, piece in spelled.items()}}, merges, byte_fallback=True
            ),
        }
        settings = {"eos_token": self.eos_text, "pad_token": "<pad>", "mask_token": mask, "unk_token": "<unk>"}
        write_tokenizer(folder, description, settings, chat_source=self.chat_source, start=self.eos_text)

    def _keeps_the_laws(self) -> bool:
        size = self._processor.get_piece_size()
        special = (self.eos_id, self.pad_id, self.mask_id)
        if size < _NUM_FIXED or any(self.token_bytes_V[token] for token in (0, *special)):
            return False
        singles = {token for token in range(size) if self._processor.is_byte(token)}
        if {self.token_bytes_V[token] for token in singles} != {bytes([value]) for value in range(256)}:
            return False
        text = "  a\t\r\n B\x07 é e\u0301 \ufb01 \u2581 漢 🙂 <mask></s>"
        return b"".join(self.token_bytes_V[token] for token in self.encode(text)) == text.encode()

    def _bytes_of(self, token: int) -> bytes:
        piece = self._processor.id_to_piece(token)
        if self._processor.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        return piece.replace(SPACE, " ").encode()


def _train(config: SentencePieceConfig, corpus: Corpus) -> bytes:
    chunks = _without_rare_characters(_sample(corpus, config.sample_bytes), config)
    if not any(chunk.strip() for chunk in chunks):
        raise UserError("data.path must hold text to train a tokenizer on; the corpus is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(chunks),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size,
            # A vocabulary that the corpus cannot fill is made smaller.
            hard_vocab_limit=False,
            max_sentencepiece_length=config.max_piece_length,
            max_sentence_length=8 * _CHUNK_LENGTH,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            split_by_number=False,
            shuffle_input_sentence=False,
            # The result must not depend on how many cores there are.
            num_threads=1,
            unk_id=0,
            eos_id=SentencePieceTokenizer.eos_id,
            pad_id=SentencePieceTokenizer.pad_id,
            bos_id=-1,
            control_symbols=["<mask>"],
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"tokenizer: SentencePiece must be able to learn from the corpus; {reason}") from error
    return model.getvalue()


def _sample(corpus: Corpus, sample_bytes: int) -> list[str]:
    """Chunks of the training split with the smallest hashes, about `sample_bytes` of them: the same on every run."""
    kept: list[tuple[int, str]] = []
    kept_bytes = scanned_bytes = 0
    for document in documents_of(corpus):
        if document.split != "train":
            continue
        for chunk in _chunks(document.text):
            digest = hashlib.blake2b(chunk.encode(), digest_size=8).digest()
            # A heap's first entry is its smallest, here the one with the largest hash.
            heapq.heappush(kept, (-int.from_bytes(digest, "big"), chunk))
            kept_bytes += len(chunk)
            while kept_bytes - len(kept[0][1]) >= sample_bytes:
                kept_bytes -= len(heapq.heappop(kept)[1])
        scanned_bytes += len(document.text)
        if scanned_bytes >= _SCANNED_PER_SAMPLED * sample_bytes:
            break
    return [chunk for _, chunk in sorted(kept, reverse=True)]


def _chunks(text: str) -> Iterator[str]:
    """The text in chunks of whole lines where they are short enough, without what the trainer cannot read."""
    text = text.replace("\0", "").replace(SPACE, "")
    start = 0
    while start < len(text):
        end = start + _CHUNK_LENGTH
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def _without_rare_characters(chunks: Sequence[str], config: SentencePieceConfig) -> list[str]:
    """The chunks, cut where they hold characters that get no piece.

    Characters get pieces, the most frequent first, until they cover the share of the text that is wanted, or take up
    half the vocabulary: SentencePiece fails on texts of more characters than it has tokens.
    """
    counts = Counter[str]()
    for chunk in chunks:
        counts.update(chunk)
    ranked = counts.most_common()
    wanted = config.character_coverage * counts.total()
    covered_before = itertools.accumulate((count for _, count in ranked), initial=0)
    num_wanted = sum(covered < wanted for _, covered in zip(ranked, covered_before, strict=False))
    room = (config.vocab_size - _NUM_FIXED) // 2
    rare = "".join(character for character, _ in ranked[min(num_wanted, room) :])
    if not rare:
        return list(chunks)
    pattern = re.compile(f"[{re.escape(rare)}]+")
    return [part for chunk in chunks for part in pattern.split(chunk) if part]
