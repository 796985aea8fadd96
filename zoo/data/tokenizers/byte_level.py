"""Bytes: each byte of the UTF-8 text is a token. Nothing to learn, and the longest sequences."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.corpora import Corpus
from zoo.data.tokenizers.exported import after_end, byte_pairs, special_tokens, write_tokenizer
from zoo.data.tokenizers.interface import TOKENIZER_FILE, Tokenizer, TokenizerConfig, require_unicode
from zoo.data.tokenizers.pieces import BYTE_OF


@dataclasses.dataclass(frozen=True, kw_only=True)
class BytesConfig(TokenizerConfig):
    """Bytes; no parameters."""

    kind: ClassVar[str] = "bytes"

    def build(self, corpus: Corpus, *, cache_dir: Path) -> "BytesTokenizer":
        return BytesTokenizer()


class BytesTokenizer(Tokenizer):
    """Tokens 0 to 255 are the bytes; the special tokens follow."""

    eos_id = 256
    pad_id = 257
    mask_id = 258

    def __init__(self) -> None:
        self.token_bytes_V = [*(bytes([value]) for value in range(256)), b"", b"", b""]

    @property
    def fingerprint(self) -> str:
        return "bytes-1"

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str], *, num_threads: int) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) for text in texts]

    def export(self, folder: Path) -> None:
        special = {self.eos_text: self.eos_id, "<pad>": self.pad_id, self.mask_text: self.mask_id}
        letters = {letter: value[0] for letter, value in BYTE_OF.items()}
        step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        description = {
            "added_tokens": special_tokens(special),
            "pre_tokenizer": step,
            "post_processor": after_end(self.eos_text, self.eos_id),
            "decoder": step,
            "model": byte_pairs({**letters, **special}, [], byte_fallback=False),
        }
        settings = {"eos_token": self.eos_text, "pad_token": "<pad>", "mask_token": self.mask_text}
        write_tokenizer(folder, description, settings, chat_source=self.chat_source, start=self.eos_text)

    def save(self, folder: Path) -> None:
        self._save_chat_template(folder)
        (folder / TOKENIZER_FILE).write_text(json.dumps({"kind": BytesConfig.kind}), encoding="utf-8")
