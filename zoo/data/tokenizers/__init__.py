"""Tokenizers: SentencePiece trained on the corpus, bytes, and those of checkpoints. One file per kind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError, from_mapping
from zoo.data.tokenizers.byte_level import BytesConfig, BytesTokenizer
from zoo.data.tokenizers.interface import TOKENIZER_FILE, StreamingDetokenizer, Tokenizer, TokenizerConfig
from zoo.data.tokenizers.pretrained import PretrainedConfig, PretrainedTokenizer
from zoo.data.tokenizers.trained import MODEL_FILE, SentencePieceConfig, SentencePieceTokenizer

__all__ = [
    "KINDS",
    "BytesConfig",
    "BytesTokenizer",
    "PretrainedConfig",
    "PretrainedTokenizer",
    "SentencePieceConfig",
    "SentencePieceTokenizer",
    "StreamingDetokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "load_tokenizer",
    "tokenizer_config_from_mapping",
]

KINDS: dict[str, type[TokenizerConfig]] = {
    config.kind: config for config in (SentencePieceConfig, BytesConfig, PretrainedConfig)
}


def tokenizer_config_from_mapping(mapping: Mapping[str, Any], *, path: str = "tokenizer") -> TokenizerConfig:
    """Builds a tokenizer's config from what `configs/tokenizer/*.yaml` or a checkpoint holds.

    Args:
        mapping: `kind` and the fields of that kind.
        path: Config path for messages.

    Returns:
        The config of the kind.

    Raises:
        UserError: On an unknown kind, key or value.
    """
    rest = dict(mapping)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{path}: kind must be a known one; got {kind!r} (choices: {', '.join(KINDS)})")
    return from_mapping(KINDS[kind], rest, path=path)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads what `Tokenizer.save` wrote, or the tokenizer of a checkpoint in Hugging Face's layout.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    description = folder / TOKENIZER_FILE
    if not description.is_file():
        return PretrainedTokenizer(folder)
    try:
        kind = json.loads(description.read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"tokenizer: {description} must say the kind of the tokenizer; {error}") from None
    if kind == BytesConfig.kind:
        return BytesTokenizer()
    if kind == SentencePieceConfig.kind:
        try:
            return SentencePieceTokenizer((folder / MODEL_FILE).read_bytes())
        except FileNotFoundError:
            raise UserError(f"tokenizer: {folder / MODEL_FILE} must exist; it is missing") from None
    raise UserError(f"tokenizer: {description} must name a kind that is saved like this; got {kind!r}")
