"""Selective copying: symbols scattered over blanks, to be repeated in their order without the blanks.

    · s1 · · · s2 s3 · · | [s1] [s2] [s3]

Gu and Dao, "Mamba", https://arxiv.org/abs/2312.00752. Where we deviate: answers are fed back, so that a row is a
plain sequence, and no symbol comes twice in a row, so that one token of context says which comes next.

Letters: B rows, T tokens of a row, N symbols.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zoo.config import require
from zoo.data.synthetic.draws import RowDraws
from zoo.data.synthetic.task import BLANK, FIRST_SYMBOL, MARK, SyntheticTask

_SYMBOLS, _PLACES = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveCopying(SyntheticTask):
    """Copying what is not blank.

    Attributes:
        num_symbols: N.
    """

    name: ClassVar[str] = "selective_copying"

    length: int = 128
    shorter_lengths: tuple[int, ...] = (32, 64)
    vocab_size: int = 64
    num_symbols: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        most = min(self.lengths[0] // 2, self.vocab_size - FIRST_SYMBOL)
        condition = f"lie in [1, {most}] for rows of {self.lengths[0]} tokens and a vocab_size of {self.vocab_size}"
        require(1 <= self.num_symbols <= most, "num_symbols", condition, self.num_symbols)

    @property
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        return {"length": self.lengths}

    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        T, N = length + 1, self.num_symbols
        asked = T - 1 - N
        tokens_BT = np.full((len(draws.rows_B), T), BLANK, dtype=np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        symbols_BN = FIRST_SYMBOL + draws.distinct(_SYMBOLS, N, self.vocab_size - FIRST_SYMBOL)
        places_BN = np.sort(draws.distinct(_PLACES, N, asked), axis=1)
        np.put_along_axis(tokens_BT, places_BN, symbols_BN, axis=1)
        tokens_BT[:, asked] = MARK
        tokens_BT[:, asked + 1 :] = symbols_BN
        answers_BT[:, asked + 1 :] = True
        return tokens_BT, answers_BT
