"""Induction: among random tokens a mark, whose follower follows it again each time it comes back.

    x x | a x x x x | [a] x x x x x | [a]

Olsson et al., "In-context Learning and Induction Heads", https://arxiv.org/abs/2209.11895; with a special token as in
Fu et al., "Hungry Hungry Hippos", https://arxiv.org/abs/2212.14052. Where we deviate: the mark comes back
`num_repeats` times instead of once, always at the end of the row and else anywhere.

Letters: B rows, T tokens of a row, S slots of two tokens, R marks.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zoo.config import require
from zoo.data.synthetic.draws import RowDraws
from zoo.data.synthetic.task import FIRST_SYMBOL, MARK, SyntheticTask

_NOISE, _FOLLOWER, _SLOTS = range(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Induction(SyntheticTask):
    """Recalling what followed a mark.

    Attributes:
        num_repeats: How often the mark comes back; each time its follower is an answer.
    """

    name: ClassVar[str] = "induction"

    length: int = 128
    shorter_lengths: tuple[int, ...] = (32, 64)
    vocab_size: int = 64
    num_repeats: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.vocab_size > FIRST_SYMBOL, "vocab_size", f"be above {FIRST_SYMBOL}", self.vocab_size)
        most = (self.lengths[0] + 1) // 2 - 1
        condition = f"lie in [1, {most}] for rows of {self.lengths[0]} tokens"
        require(1 <= self.num_repeats <= most, "num_repeats", condition, self.num_repeats)

    @property
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        return {"length": self.lengths}

    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        T, num_symbols = length + 1, self.vocab_size - FIRST_SYMBOL
        tokens_BT = (FIRST_SYMBOL + draws.below(_NOISE, T, num_symbols)).astype(np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        # Slots are counted from the end, which one mark always takes.
        earlier_BR = 1 + draws.distinct(_SLOTS, self.num_repeats, T // 2 - 1)
        marks_BR = T - 2 - 2 * np.sort(np.insert(earlier_BR, 0, 0, axis=1), axis=1)[:, ::-1]
        np.put_along_axis(tokens_BT, marks_BR, MARK, axis=1)
        np.put_along_axis(tokens_BT, marks_BR + 1, FIRST_SYMBOL + draws.below(_FOLLOWER, 1, num_symbols), axis=1)
        np.put_along_axis(answers_BT, marks_BR[:, 1:] + 1, True, axis=1)
        return tokens_BT, answers_BT
