"""A tokenizer of chosen pieces, and a model whose next token is a table of the last one: text known in advance."""

import types
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from zoo.layers.caches import RecurrentCache

EOS = "<eos>"


class PieceTokenizer:
    """Each token is one of the given texts; token 0 ends a document."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = [EOS, *pieces]
        self.vocab_size = len(self.pieces)
        self.eos_id = self.start_id = 0
        self.end_ids = frozenset({0})

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            piece = max((piece for piece in self.pieces[1:] if text.startswith(piece)), key=len)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text) or [self.eos_id]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.pieces[token] for token in ids if token)

    def streaming_detokenizer(self) -> "PieceDetokenizer":
        return PieceDetokenizer(self)


class PieceDetokenizer:
    """Holds the last token back, as tokenizers do that wait for the rest of a character."""

    def __init__(self, tokenizer: PieceTokenizer) -> None:
        self.tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        self.text = ""
        self.held: list[int] = []
        self.shown = 0

    def add_token(self, token: int) -> None:
        self.finalize()
        self.held = [token]

    def finalize(self) -> None:
        self.text += self.tokenizer.decode(self.held)
        self.held = []

    @property
    def last_segment(self) -> str:
        segment = self.text[self.shown :]
        self.shown = len(self.text)
        return segment


class ScriptedModel(nn.Module):
    """The token after t is `table[t]`, with a score of `margin` above the 1 of all others."""

    def __init__(
        self, table: list[int], *, position_limit: int | None = None, padding: int = 0, margin: float = 9.0
    ) -> None:
        super().__init__()
        vocab_size = len(table) + padding
        self.config = types.SimpleNamespace(
            causal=True, family="scripted", vocab_size=vocab_size, position_limit=position_limit, rope_scaling=None
        )
        self.calls: list[tuple[int, ...]] = []
        self.modes: list[bool] = []
        chosen = mx.arange(vocab_size) == mx.array(table)[:, None]
        self._scores = 1.0 + margin * chosen.astype(mx.float32)

    def make_cache(self) -> list[Any]:
        return [RecurrentCache(1)]

    def __call__(self, tokens_BL: mx.array, *, cache: list[Any]) -> mx.array:
        self.calls.append(tokens_BL.shape)
        self.modes.append(self.training)
        cache[0][0] = tokens_BL[:, -1:].astype(mx.float32)
        cache[0].advance(tokens_BL.shape[1])
        return self._scores[tokens_BL]


def chain(tokenizer: PieceTokenizer, *texts: str, **options: Any) -> ScriptedModel:
    """A model that goes through each text's pieces, each piece used once, and then ends the document."""
    table = [0] * tokenizer.vocab_size
    for text in texts:
        ids = tokenizer.encode(text)
        for token, following in zip(ids, [*ids[1:], 0], strict=True):
            table[token] = following
    return ScriptedModel(table, **options)
