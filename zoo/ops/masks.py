"""Which tokens may attend to which: a description, never an L×S array until a dense operation asks for one.

Letters: B batch, L query length, S key length.
"""

import dataclasses

import mlx.core as mx

from zoo.config import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskSpec:
    """Describes what a query may attend to, apart from the mechanism's own pattern. True means "may attend".

    Attributes:
        causal: Keys after the query are hidden.
        lengths_B: Number of valid tokens in each row, int32, for right-padded rows; None if all are valid.
            Outputs at padded positions are unspecified but finite.
        segments_BL: Document number of each token of packed rows, int32, non-decreasing along a row; a token
            attends only inside its own document. None if a row is one document.
        offset: Tokens that came before the first query of this call (those in the cache): an int, or int32 [B]
            when the rows of a batch have different histories.
    """

    causal: bool
    lengths_B: mx.array | None = None
    segments_BL: mx.array | None = None
    offset: int | mx.array = 0

    @property
    def is_plain(self) -> bool:
        """Whether only causality restricts the queries: no padding and no packed documents."""
        return self.lengths_B is None and self.segments_BL is None

    def positions(self, length: int) -> mx.array:
        """Positions of the `length` query tokens of this call.

        Returns:
            int32, [L] when all rows share one history, else [B, L].
        """
        steps_L = mx.arange(length, dtype=mx.int32)
        if isinstance(self.offset, int):
            return steps_L + self.offset
        return self.offset[:, None].astype(mx.int32) + steps_L

    def require_no_padding_with_cache(self) -> None:
        """Refuses padding or packed rows where a cache is in use.

        Raises:
            UserError: If the description has lengths or segments.
        """
        if not self.is_plain:
            raise UserError(
                "mask: lengths and segments must not be combined with a cache; "
                "prefill ragged prompts one by one and merge their caches (zoo.generation)"
            )
