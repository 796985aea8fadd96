"""Needle in a haystack: a passkey after a mark, hidden at some depth of noise, is asked for at the end.

    x x x x | p1 … pk x x x x x x x x | [p1] … [pk]

The passkey retrieval of Mohtashami and Jaggi, "Landmark Attention", https://arxiv.org/abs/2305.16300, in tokens of its
own instead of English. Depth 0 is the beginning of the row, depth 1 the last place before the question.

Letters: B rows, T tokens of a row, K tokens of a passkey.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zoo.config import require
from zoo.data.synthetic.draws import RowDraws
from zoo.data.synthetic.task import FIRST_SYMBOL, MARK, SyntheticTask

_NOISE, _PASSKEY, _PLACE = range(3)
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needle(SyntheticTask):
    """Retrieving a passkey.

    Attributes:
        passkey_tokens: K, different tokens that occur nowhere in the noise.
        depth: Where the needle lies, rows take these in turn; empty for anywhere, which takes several times as long
            to learn with learned positions.
    """

    name: ClassVar[str] = "needle"

    length: int = 128
    shorter_lengths: tuple[int, ...] = (32, 64)
    vocab_size: int = 64
    passkey_tokens: int = 4
    depth: tuple[float, ...] = _DEPTHS
    validation_rows: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        most = min((self.lengths[0] + 1) // 2 - 1, self._num_passkey_symbols)
        condition = f"lie in [1, {most}] for rows of {self.lengths[0]} tokens and a vocab_size of {self.vocab_size}"
        require(1 <= self.passkey_tokens <= most, "passkey_tokens", condition, self.passkey_tokens)
        inside = all(0 <= depth <= 1 for depth in self.depth)
        require(inside, "depth", "lie between 0 and 1", list(self.depth))

    @property
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        return {"length": self.lengths, "depth": self.depth or _DEPTHS}

    @property
    def _num_passkey_symbols(self) -> int:
        return (self.vocab_size - FIRST_SYMBOL) // 2

    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        T, K = length + 1, self.passkey_tokens
        first_noise = FIRST_SYMBOL + self._num_passkey_symbols
        tokens_BT = (first_noise + draws.below(_NOISE, T, self.vocab_size - first_noise)).astype(np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        asked = T - 1 - K
        needle_BK = np.arange(1, K + 1) + self._places(draws, asked - 1 - K)[:, None]
        passkey_BK = FIRST_SYMBOL + draws.distinct(_PASSKEY, K, self._num_passkey_symbols)
        for places_BK in (needle_BK, np.broadcast_to(asked + 1 + np.arange(K), needle_BK.shape)):
            np.put_along_axis(tokens_BT, places_BK[:, :1] - 1, MARK, axis=1)
            np.put_along_axis(tokens_BT, places_BK, passkey_BK, axis=1)
        answers_BT[:, asked + 1 :] = True
        return tokens_BT, answers_BT

    def _places(self, draws: RowDraws, last: int) -> np.ndarray:
        """Where the needle's mark stands, int64 [B], in [0, last]."""
        if not self.depth:
            return draws.below(_PLACE, 1, last + 1)[:, 0]
        turns_B = draws.rows_B // len(self.lengths) % len(self.depth)
        return np.floor(np.array(self.depth)[turns_B] * last + 0.5).astype(np.int64)
