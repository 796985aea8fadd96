"""Copying: a string, and then the same string again, token by token.

    | s1 s2 … sn | [s1] [s2] … [sn]

Jelassi et al., "Repeat After Me: Transformers are Better than State Space Models at Copying",
https://arxiv.org/abs/2402.01032. Where we deviate: no symbol comes twice in a string, so that one token of context
says what comes next; a string fills its row, whose length says how long it is.

Letters: B rows, T tokens of a row, N symbols of a string.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zoo.config import require
from zoo.data.synthetic.draws import RowDraws
from zoo.data.synthetic.task import BLANK, FIRST_SYMBOL, MARK, SyntheticTask

_SYMBOLS = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copying(SyntheticTask):
    """Copying a string."""

    name: ClassVar[str] = "copying"

    length: int = 128
    shorter_lengths: tuple[int, ...] = (16, 32, 64)
    vocab_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lengths[0] >= 3, "length", "be at least 3, for a string of one symbol", self.lengths[0])
        wanted = self._num_symbols(self.length) + FIRST_SYMBOL
        condition = f"be at least {wanted}, for the different symbols of a row of {self.length} tokens"
        require(self.vocab_size >= wanted, "vocab_size", condition, self.vocab_size)

    @property
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        return {"length": self.lengths}

    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        N = self._num_symbols(length)
        tokens_BT = np.full((len(draws.rows_B), length + 1), BLANK, dtype=np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        symbols_BN = FIRST_SYMBOL + draws.distinct(_SYMBOLS, N, self.vocab_size - FIRST_SYMBOL)
        for start in (0, N + 1):
            tokens_BT[:, start] = MARK
            tokens_BT[:, start + 1 : start + 1 + N] = symbols_BN
        answers_BT[:, N + 2 : 2 * N + 2] = True
        return tokens_BT, answers_BT

    def _num_symbols(self, length: int) -> int:
        return (length - 1) // 2
