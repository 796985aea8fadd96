"""Writes a tokenizer as transformers and mlx-lm read it: `tokenizer.json`, its settings and the chat template.

Its tokens are equal to ours for every text but one that spells a special token, which those tools take for the token.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Where transformers keeps it, and we do too.
CHAT_TEMPLATE_FILE = "chat_template.jinja"
# Of pieces that write a space as U+2581, and bytes by name: a form that mlx-lm knows.
SPACES_BACK = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def special_tokens(names: Mapping[str, int]) -> list[dict[str, Any]]:
    """Special tokens as `tokenizer.json` lists them."""
    ordered = sorted(names.items(), key=lambda each: each[1])
    return [{"id": token, "content": name, **_PLAIN, "special": True} for name, token in ordered]


def after_end(name: str, token: int) -> dict[str, Any]:
    """Puts the end of a document before every text, as models that are trained here learn to begin one."""
    end: list[dict[str, Any]] = [{"SpecialToken": {"id": name, "type_id": 0}}]
    first, second = ({"Sequence": {"id": each, "type_id": 0}} for each in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*end, first],
        "pair": [*end, first, second],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]}},
    }


def byte_pairs(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """A model of byte pairs."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": dict(vocab),
        "merges": [list(merge) for merge in merges],
    }


def write_tokenizer(
    folder: Path,
    description: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    chat_source: str | None,
    start: str = "",
) -> None:
    """Writes the files.

    Args:
        folder: Exists.
        description: Of the backend; what is left out is null.
        settings: Names of special tokens, for `tokenizer_config.json`.
        chat_source: The chat template, or None.
        start: A special token that stands before every chat; other tools begin one with what the template gives.

    Raises:
        OSError: If they cannot be written.
    """
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    whole = {"version": "1.0", **dict.fromkeys(parts), **description}
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, content in (("tokenizer.json", whole), ("tokenizer_config.json", {**fixed, **settings})):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    if chat_source is not None:
        (folder / CHAT_TEMPLATE_FILE).write_text(f"{start}{chat_source}", encoding="utf-8")
