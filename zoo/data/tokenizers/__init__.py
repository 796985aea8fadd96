"""Tokenizers: SentencePiece trained on the corpus, bytes, and those of checkpoints. One file per kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError, from_mapping
from zoo.config.errors import shortened
from zoo.config.files import read_bytes, read_json_mapping
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
        raise UserError(f"{path}: kind must be a known one; got {shortened(kind)} (choices: {', '.join(KINDS)})")
    return from_mapping(KINDS[kind], rest, path=path)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads what `Tokenizer.save` wrote, or the tokenizer of a checkpoint in Hugging Face's layout.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    description = folder / TOKENIZER_FILE
    if not description.is_file():
        return PretrainedTokenizer(folder)
    kind = read_json_mapping(description, what="tokenizer").get("kind")
    if kind == BytesConfig.kind:
        return BytesTokenizer()
    if kind == SentencePieceConfig.kind:
        return SentencePieceTokenizer(read_bytes(folder / MODEL_FILE, what="tokenizer"))
    choices = f"(choices: {BytesConfig.kind}, {SentencePieceConfig.kind})"
    raise UserError(f"tokenizer: {description}: kind must be one that is saved so; got {shortened(kind)} {choices}")
