"""The tokenizer of a GGUF file, written out in the form that everything else reads: `tokenizer.json` and its config.

Two kinds there are in the Llama family. `gpt2` is byte-level BPE: a vocabulary, merges in order, and the name of the
rule that cuts a text before it is merged. `llama` is SentencePiece's BPE: of two neighbours that make a piece, those go
together first whose piece has the highest score, and a character without a piece falls apart into bytes. Read as a list
of merges it is every way to cut a piece into two, the best piece first.

Where readers of these files differ, this one does what the model was trained with: single digits before everything
else under `smollm`, canonical composition under `qwen2`, whole words without merging under `llama-bpe`, and under
`llama` a space before a text, whatever it begins with, and after a special token.

A chat template is a text here. Nothing executes it until somebody chats.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.checkpoints.gguf.header import Header
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.data.tokenizers import Tokenizer, load_tokenizer
from zoo.data.tokenizers.exported import byte_pairs
from zoo.data.tokenizers.interface import SPACE
from zoo.data.tokenizers.pieces import implied_merges

_PREFIX = "tokenizer.ggml."
_TOKENS, _TYPES, _SCORES, _MERGES = (f"{_PREFIX}{name}" for name in ("tokens", "token_type", "scores", "merges"))
_TEMPLATE = "tokenizer.chat_template"
# By the format's number.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
# What SentencePiece itself takes at most, in characters.
_LONGEST_PIECE = 512
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# How texts are cut, as in the tokenizers that these models were published with.
_SPLITS = {
    "llama-bpe": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}",
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_SAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
_RULES = ("gpt-2", "smollm", *_SPLITS)


def read_tokenizer(header: Header, folder: Path) -> Tokenizer:
    """Writes the tokenizer's files into a folder and loads them.

    Args:
        header: Of the GGUF file.
        folder: Exists, and is the caller's to remove.

    Raises:
        UserError: If the file has no tokenizer, one of another kind, or one that contradicts itself.
    """
    tokens = _tokens(header)
    kind = header.text(f"{_PREFIX}model")
    if kind == "gpt2":
        description = _byte_level(header, tokens)
    elif kind == "llama":
        description = _sentence_piece(header, tokens)
    else:
        raise header.refusal(f"{_PREFIX}model", "be gpt2 or llama")
    names = _named(header, tokens)
    special = set(names.values())
    description["added_tokens"] = _added(header, tokens, special)
    description["post_processor"] = _around(header, names, kind)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{name: tokens[token] for name, token in names.items()},
    }
    if _TEMPLATE in header.metadata:
        settings["chat_template"] = header.text(_TEMPLATE)
    for name, content in (("tokenizer.json", description), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return load_tokenizer(folder)


def _tokens(header: Header) -> list[str]:
    tokens = header.items(_TOKENS, str)
    if not tokens:
        raise UserError(f"{header.where}: {_TOKENS} must list the vocabulary; got nothing")
    if len(set(tokens)) < len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise UserError(f"{header.where}: {_TOKENS} must list each token once; got {shortened(twice)} twice")
    return tokens


def _types(header: Header, tokens: Sequence[str]) -> list[int]:
    types = header.items(_TYPES, int) or [_NORMAL] * len(tokens)
    _require_as_many(header, _TYPES, types, tokens)
    return types


def _require_as_many(header: Header, key: str, values: Sequence[object], tokens: Sequence[str]) -> None:
    if len(values) != len(tokens):
        raise UserError(f"{header.where}: {key} must have {len(tokens)} items, one for each token; got {len(values)}")


def _named(header: Header, tokens: Sequence[str]) -> dict[str, int]:
    """The tokens that have a part of their own, by the names that transformers gives the parts."""
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    named = {}
    for name, word in keys.items():
        key = f"{_PREFIX}{word}_token_id"
        if key in header.metadata:
            named[name] = header.integer(key)
            if not 0 <= named[name] < len(tokens):
                raise header.refusal(key, f"lie between 0 and {len(tokens) - 1}")
    return named


def _added(header: Header, tokens: Sequence[str], special: set[int]) -> list[dict[str, Any]]:
    """Tokens that a text spells out whole: special ones, and those that a user defined."""
    types = _types(header, tokens)
    whole = {token: kind in (_UNKNOWN, _CONTROL) for token, kind in enumerate(types) if kind in (2, 3, _USER_DEFINED)}
    whole |= dict.fromkeys(special, True)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": token, "content": tokens[token], **plain, "special": whole[token]} for token in sorted(whole)]


def _around(header: Header, names: dict[str, int], kind: str) -> dict[str, Any] | None:
    """What stands before and behind every text."""
    begins = kind == "llama" or _rule(header) in ("llama-bpe", "tekken")
    parts: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    specials = {}
    for name, word, default in (("bos_token", "bos", begins), ("eos_token", "eos", False)):
        key = f"{_PREFIX}add_{word}_token"
        if not header.truth(key, default):
            continue
        if name not in names:
            raise UserError(f"{header.where}: {_PREFIX}{word}_token_id must be given where {key} is true; got nothing")
        token = header.items(_TOKENS, str)[names[name]]
        specials[token] = {"id": token, "ids": [names[name]], "tokens": [token]}
        part = {"SpecialToken": {"id": token, "type_id": 0}}
        parts = [part, *parts] if word == "bos" else [*parts, part]
    if not specials:
        return None
    second = [{"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": parts, "pair": [*parts, *second], "special_tokens": specials}


def _rule(header: Header) -> str | None:
    """The rule by which a text is cut before it is merged."""
    name = header.metadata.get(f"{_PREFIX}pre")
    return _SAME.get(name, name) if isinstance(name, str) else None


def _byte_level(header: Header, tokens: Sequence[str]) -> dict[str, Any]:
    rule = _rule(header)
    if rule not in _RULES:
        raise header.refusal(f"{_PREFIX}pre", f"be one of {', '.join((*_RULES, *_SAME))}")
    merges = [merge.split(" ") for merge in header.items(_MERGES, str)]
    broken = next((merge for merge in merges if len(merge) != 2 or "" in merge), None)
    if broken is not None:
        raise UserError(f"{header.where}: {_MERGES} must be pairs of tokens; got {shortened(' '.join(broken))}")
    return {
        "normalizer": {"type": "NFC"} if rule == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _steps(rule)},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": byte_pairs(_numbered(tokens), merges, ignore_merges=rule in ("llama-bpe", "tekken")),
    }


def _steps(rule: str) -> list[dict[str, Any]]:
    """How a text is cut by a rule, and its bytes become letters."""
    bytes_alone = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": rule not in _SPLITS,
    }
    first: list[dict[str, Any]] = []
    if rule == "smollm":
        first = [{"type": "Digits", "individual_digits": True}]
    elif rule in _SPLITS:
        first = [{"type": "Split", "pattern": {"Regex": _SPLITS[rule]}, "behavior": "Isolated", "invert": False}]
    return [*first, bytes_alone]


def rule_of(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The rule by which a tokenizer of byte pairs cuts texts, None if no file can name it."""
    step = pre_tokenizer or {}
    steps = step["pretokenizers"] if step.get("type") == "Sequence" else [step]
    # Offsets are no part of what the tokens are.
    kept = [{key: value for key, value in each.items() if key != "trim_offsets"} for each in steps]
    for rule in _RULES:
        own = [{key: value for key, value in each.items() if key != "trim_offsets"} for each in _steps(rule)]
        if kept == own:
            return rule
    return None


def _sentence_piece(header: Header, tokens: Sequence[str]) -> dict[str, Any]:
    scores = header.items(_SCORES, float)
    _require_as_many(header, _SCORES, scores, tokens)
    prefixed = header.truth(f"{_PREFIX}add_space_prefix", True)
    types = _types(header, tokens)
    unknown = _named(header, tokens).get("unk_token", types.index(_UNKNOWN) if _UNKNOWN in types else None)
    spaces = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    back: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    back += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefixed:
        spaces = [{"type": "Prepend", "prepend": SPACE}, *spaces]
        back += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "normalizer": {"type": "Sequence", "normalizers": spaces},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {
            **byte_pairs(_numbered(tokens), _implied_merges(header, tokens, types, scores)),
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def _implied_merges(
    header: Header, tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """All ways to cut a piece into two others, those of the piece with the highest score first."""
    longest = max(tokens, key=len)
    if len(longest) > _LONGEST_PIECE:
        raise UserError(
            f"{header.where}: {_TOKENS} must have at most {_LONGEST_PIECE} characters; got {shortened(longest)}"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"{header.where}: {_SCORES} must be finite numbers; some are not")
    score_of = {
        token: score
        for token, kind, score in zip(tokens, types, scores, strict=True)
        if kind in (_NORMAL, _USER_DEFINED)
    }
    return implied_merges(score_of)


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
