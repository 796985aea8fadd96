"""The random numbers of rows: pure functions of a stream's key, the row's number and what the number is for.

Letters: B rows.
"""

import dataclasses

import numpy as np

from zoo.data.randomness import key_from, mixed_bits


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RowDraws:
    """Numbers of some rows of a stream; a row's are the same whichever rows stand beside it.

    Attributes:
        key: Of the stream.
        rows_B: Numbers of the rows, int64, at least 0.
    """

    key: int
    rows_B: np.ndarray

    def only(self, kept_B: np.ndarray) -> "RowDraws":
        """The same for those rows where `kept_B` is true."""
        return RowDraws(key=self.key, rows_B=self.rows_B[kept_B])

    def bits(self, purpose: int, width: int) -> np.ndarray:
        """64 random bits each, uint64 [B, width]; another purpose has other ones."""
        return mixed_bits(self.rows_B[:, None] * width + np.arange(width), key_from(self.key, purpose))

    def below(self, purpose: int, width: int, bound: int) -> np.ndarray:
        """Whole numbers in [0, bound), int64 [B, width]."""
        # Of 2^64 bits so few are left over that no count of rows could tell.
        return (self.bits(purpose, width) % np.uint64(bound)).astype(np.int64)

    def distinct(self, purpose: int, width: int, bound: int) -> np.ndarray:
        """Different whole numbers in [0, bound) in random order, int64 [B, width]; `width` is at most `bound`."""
        return np.argsort(self.bits(purpose, bound), axis=1, kind="stable")[:, :width]

    def uniform(self, purpose: int, width: int) -> np.ndarray:
        """Real numbers between 0 and 1, both excluded, float64 [B, width]."""
        return ((self.bits(purpose, width) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
