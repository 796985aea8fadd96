"""Tokenizers: SentencePiece trained on the corpus, bytes, and those of checkpoints. One file per kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened
from zoo.config.files import read_bytes, read_json_mapping, read_text
from zoo.data.tokenizers.byte_level import BytesConfig, BytesTokenizer
from zoo.data.tokenizers.chat_template import ChatTemplate
from zoo.data.tokenizers.exported import CHAT_TEMPLATE_FILE
from zoo.data.tokenizers.interface import (
    TOKENIZER_FILE,
    StreamingDetokenizer,
    Tokenizer,
    TokenizerConfig,
)
from zoo.data.tokenizers.pretrained import VOCABULARIES, PretrainedConfig, PretrainedTokenizer
from zoo.data.tokenizers.trained import MODEL_FILE, SentencePieceConfig, SentencePieceTokenizer

__all__ = [
    "KINDS",
    "BytesConfig",
    "BytesTokenizer",
    "ChatTemplate",
    "PretrainedConfig",
    "PretrainedTokenizer",
    "SentencePieceConfig",
    "SentencePieceTokenizer",
    "StreamingDetokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "has_tokenizer",
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
        raise UserError(f"{path}: kind must be a known one; got {shortened(kind)} (choices: {', '.join(KINDS)})")
    return from_mapping(KINDS[kind], rest, path=path)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of any kind."""
    return any((folder / name).exists() for name in (TOKENIZER_FILE, *VOCABULARIES))


def load_tokenizer(folder: Path, *, trained_here: bool = False) -> Tokenizer:
    """Loads what `Tokenizer.save` wrote, or the tokenizer of a checkpoint in Hugging Face's layout.

    Args:
        folder: Holds the tokenizer.
        trained_here: Of one in Hugging Face's layout that does not say it itself, whether its model learnt to begin
            a text after the end of a document.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return PretrainedTokenizer(folder, trained_here=trained_here)
    described = read_json_mapping(path, what="tokenizer")
    kind = described.get("kind")
    if kind == BytesConfig.kind:
        return _with_template(BytesTokenizer(), folder)
    if kind == SentencePieceConfig.kind:
        return _with_template(SentencePieceTokenizer(read_bytes(folder / MODEL_FILE, what="tokenizer")), folder)
    if kind == PretrainedConfig.kind:
        said = described.get("trained_here")
        if not isinstance(said, bool):
            raise UserError(
                f"tokenizer: {path}: trained_here must be true or false beside kind pretrained; got {shortened(said)}"
            )
        return PretrainedTokenizer(folder, trained_here=said)
    choices = f"(choices: {', '.join(KINDS)})"
    raise UserError(f"tokenizer: {path}: kind must be one that is saved so; got {shortened(kind)} {choices}")


def _with_template(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    path = folder / CHAT_TEMPLATE_FILE
    return tokenizer.with_chat_template(read_text(path, what="tokenizer")) if path.exists() else tokenizer
