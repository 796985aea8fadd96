"""How a checkpoint's tokenizer writes its pieces, and so what bytes each of its tokens stands for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError
from zoo.data.tokenizers.interface import SPACE

# These change a text and are not needed to split it.
_NORMAL_FORMS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Prepend"})
# Sixteen times the largest vocabulary in use; each number up to the largest takes a place in a table.
_LARGEST_ID = 2**22


def require_small_numbers(file: Path, content: dict[str, Any]) -> None:
    """Refuses a tokenizer's file that numbers its tokens as if there were far more of them.

    Rust walks through all numbers up to the largest, and keeps a list of those that are not in use.

    Raises:
        UserError: Names the file.
    """
    largest = max(_token_numbers(file.name, content), default=0)
    if largest > _LARGEST_ID:
        raise UserError(f"tokenizer: {file} must have token numbers of at most {_LARGEST_ID}; got {largest}")


def _token_numbers(name: str, content: dict[str, Any]) -> Iterator[int]:
    """The numbers that a file of a tokenizer gives to tokens; what is none of its kind is the reader's to refuse."""
    model, added = content.get("model"), content.get("added_tokens")
    tables = [model.get("vocab") if isinstance(model, dict) else None]
    if name in ("vocab.json", "added_tokens.json"):
        tables.append(content)
    for table in tables:
        if isinstance(table, dict):
            yield from (value for value in table.values() if isinstance(value, int))
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"]
    decoder = content.get("added_tokens_decoder")
    yield from (int(key) for key in decoder if key.isdecimal() and len(key) < 20) if isinstance(decoder, dict) else ()


def _types(step: dict[str, Any] | None) -> set[str]:
    """Types of a step and of all that it consists of."""
    if step is None:
        return set()
    parts = step.get("normalizers") or step.get("pretokenizers") or ()
    return {step["type"]}.union(*(_types(part) for part in parts))


def uses_metaspace(backend: dict[str, Any]) -> bool:
    """Whether pieces write a space as U+2581, and not bytes as letters."""
    return "ByteLevel" not in _types(backend["normalizer"]) | _types(backend["pre_tokenizer"])


def token_bytes(wrapper: Any, backend: dict[str, Any]) -> list[bytes]:
    """What each token stands for, from how its piece is written."""
    pieces: dict[str, int] = wrapper.get_vocab()
    largest = max(pieces.values())
    added = {token["id"]: token for token in backend["added_tokens"]}
    special = {token for token, each in added.items() if each["special"]} | set(wrapper.all_special_ids)
    metaspace = uses_metaspace(backend)
    fallback = bool(backend["model"].get("byte_fallback"))
    table = [b""] * (largest + 1)
    for piece, token in pieces.items():
        if token in special:
            continue
        if metaspace and fallback and len(piece) == 6 and piece.startswith("<0x"):
            table[token] = bytes([int(piece[3:5], 16)])
        elif metaspace:
            table[token] = piece.replace(SPACE, " ").encode()
        elif token in added:
            table[token] = piece.encode()
        else:
            table[token] = b"".join(BYTE_OF.get(character, character.encode()) for character in piece)
    return table


def _byte_alphabet() -> dict[str, bytes]:
    """GPT-2's characters for bytes: printable ones of Latin-1 stand for themselves, the rest begins at U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in printable]
    named = {chr(value): bytes([value]) for value in printable}
    return named | {chr(256 + index): bytes([value]) for index, value in enumerate(others)}


BYTE_OF = _byte_alphabet()


def implied_merges(score_of: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges of SentencePiece's pieces: all ways to cut one into two others, the piece of highest score first."""
    ranked = sorted(score_of, key=lambda piece: -score_of[piece])
    cuts = ((piece[:place], piece[place:]) for piece in ranked for place in range(len(piece) - 1, 0, -1))
    return [(left, right) for left, right in cuts if left in score_of and right in score_of]


def without_changes(backend: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer's description without what changes a text, adds to it, or takes part of it for special tokens."""
    return {
        **backend,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "decoder": None,
        "added_tokens": [
            {**token, "lstrip": False, "rstrip": False} for token in backend["added_tokens"] if not token["special"]
        ],
        "normalizer": _exact_step(backend["normalizer"], "normalizers"),
        "pre_tokenizer": _exact_step(backend["pre_tokenizer"], "pretokenizers"),
        "model": {**backend["model"], "dropout": None} if "dropout" in backend["model"] else backend["model"],
    }


def _exact_step(step: dict[str, Any] | None, parts: str) -> dict[str, Any] | None:
    if step is None or step["type"] in _NORMAL_FORMS:
        return None
    if step["type"] == "Sequence":
        kept = [exact for part in step[parts] if (exact := _exact_step(part, parts)) is not None]
        return {**step, parts: kept} if kept else None
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step["type"] == "ByteLevel" and "add_prefix_space" in step:
        return {**step, "add_prefix_space": False}
    return step
