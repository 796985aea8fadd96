"""Multi-query associative recall: pairs of keys and values, then the keys again, each to be answered by its value.

    k1 v1 k2 v2 … kn vn | · · k2 [v2] · · · · k1 [v1] …

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models",
https://arxiv.org/abs/2312.04927. As there, keys are different within a row and each is asked for once, at a gap of g
slots of two tokens after the pairs with probability proportional to g^(power - 1), without replacement; between are
blanks. Where we deviate: the answer stands in the row after its query, so that a row is a plain sequence; and
any key is asked for at any drawn gap, where there the first ones tend to come first.

Letters: B rows, T tokens of a row, P pairs, G slots.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zoo.config import require
from zoo.data.synthetic.draws import RowDraws
from zoo.data.synthetic.task import BLANK, SyntheticTask

_KEYS, _VALUES, _GAPS, _ORDER = range(4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiQueryRecall(SyntheticTask):
    """Multi-query associative recall.

    Attributes:
        num_pairs: Pairs of a row; rows take these counts in turn.
        power: Law of the gaps; 1 makes all gaps equally likely, smaller ones favour short gaps.
    """

    name: ClassVar[str] = "mqar"

    length: int = 128
    vocab_size: int = 64
    num_pairs: tuple[int, ...] = (2, 4, 8, 16, 24)
    validation_rows: int = 240
    power: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        shortest = self.lengths[0]
        most = min((shortest + 1) // 4, self._num_keys)
        fit = len(self.num_pairs) > 0 and all(1 <= pairs <= most for pairs in self.num_pairs)
        condition = f"lie in [1, {most}] for rows of {shortest} tokens and a vocab_size of {self.vocab_size}"
        require(fit, "num_pairs", condition, list(self.num_pairs))

    @property
    def axes(self) -> Mapping[str, tuple[int | float, ...]]:
        return {"num_pairs": self.num_pairs, "length": self.lengths}

    @property
    def _num_keys(self) -> int:
        return (self.vocab_size - 1) // 2

    def _draw(self, draws: RowDraws, length: int) -> tuple[np.ndarray, np.ndarray]:
        tokens_BT = np.full((len(draws.rows_B), length + 1), BLANK, dtype=np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        turns_B = draws.rows_B // len(self.lengths) % len(self.num_pairs)
        for turn, num_pairs in enumerate(self.num_pairs):
            kept_B = turns_B == turn
            if kept_B.any():
                tokens_BT[kept_B], answers_BT[kept_B] = self._with_pairs(draws.only(kept_B), length, num_pairs)
        return tokens_BT, answers_BT

    def _with_pairs(self, draws: RowDraws, length: int, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
        tokens_BT = np.full((len(draws.rows_B), length + 1), BLANK, dtype=np.int32)
        answers_BT = np.zeros(tokens_BT.shape, dtype=bool)
        keys_BP = 1 + draws.distinct(_KEYS, num_pairs, self._num_keys)
        first_value = 1 + self._num_keys
        values_BP = first_value + draws.below(_VALUES, num_pairs, self.vocab_size - first_value)
        tokens_BT[:, 0 : 2 * num_pairs : 2] = keys_BP
        tokens_BT[:, 1 : 2 * num_pairs : 2] = values_BP
        asked_BP = 2 * num_pairs + 2 * self._gaps(draws, num_pairs, (length + 1 - 2 * num_pairs) // 2)
        order_BP = draws.distinct(_ORDER, num_pairs, num_pairs)
        np.put_along_axis(tokens_BT, asked_BP, np.take_along_axis(keys_BP, order_BP, axis=1), axis=1)
        np.put_along_axis(tokens_BT, asked_BP + 1, np.take_along_axis(values_BP, order_BP, axis=1), axis=1)
        np.put_along_axis(answers_BT, asked_BP + 1, True, axis=1)
        return tokens_BT, answers_BT

    def _gaps(self, draws: RowDraws, num_pairs: int, num_slots: int) -> np.ndarray:
        """Different slots by the law of the gaps, int64 [B, P].

        Those with the smallest -log(u) / weight are a weighted sample without replacement (Efraimidis and Spirakis,
        https://doi.org/10.1016/j.ipl.2005.11.003).
        """
        weights_G = np.arange(1, num_slots + 1, dtype=np.float64) ** (self.power - 1)
        urgency_BG = -np.log(draws.uniform(_GAPS, num_slots)) / weights_G
        return np.argsort(urgency_BG, axis=1, kind="stable")[:, :num_pairs]
