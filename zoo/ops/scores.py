"""What a mechanism does to its scores before the softmax, and the virtual key that has a logit but no value.

    s_ij = score(scale * q_i·k_j, i, j) + bias_ij
    y_i = sum_j e^(s_ij) v_j / (e^(sink_logit) + sum_j e^(s_ij))

Such functions are written once, with MLX, which differentiates them; the float64 reference calls them in float64.

Letters: B batch, L query length, S key length, N query heads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.config import UserError

Learned = Mapping[str, mx.array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreHook:
    """The functions of a mechanism about its scores. Where there is `learned`, the others take its arrays last.

    Attributes:
        score: `score(scores_BNLS, query_index, key_index, config)` -> scores. Each of the result may depend on the
            scores of the same query and key and on the indices, integer [1 or B, 1, L, 1] and [1 or B, 1, 1, S].
        sink_logit: `sink_logit(config)` -> a number, or [N].
        learned: `learned(config, num_heads)` -> initial values by name, always the same ones.
        settle: `settle(layer)`, as a `Mechanism` has it.
    """

    score: Callable[..., mx.array] | None = None
    sink_logit: Callable[..., Any] | None = None
    learned: Callable[[Any, int], Learned] | None = None
    settle: Callable[[Any], str] | None = None


@dataclasses.dataclass(frozen=True)
class BoundHook:
    """A `ScoreHook` with the mechanism's parameters filled in."""

    hook: ScoreHook
    config: Any

    @property
    def changes_scores(self) -> bool:
        """Whether the scores are not the plain products of queries and keys."""
        return self.hook.score is not None

    @property
    def has_sink(self) -> bool:
        """Whether there is a virtual key."""
        return self.hook.sink_logit is not None

    def initial(self, num_heads: int) -> dict[str, mx.array]:
        """What is learned, as it begins."""
        return {} if self.hook.learned is None else dict(self.hook.learned(self.config, num_heads))

    def changed(self, scores_BNLS: mx.array, query: mx.array, key: mx.array, learned: Learned) -> mx.array:
        """The scores after `score`, in the dtype of those given.

        Args:
            scores_BNLS: Scaled products of queries and keys.
            query: Positions of the queries, integer [1 or B, L].
            key: Positions of the keys, integer [1 or B, S].
            learned: What is learned, in the dtype of the scores.

        Raises:
            UserError: If `score` returns another shape.
        """
        if self.hook.score is None:
            return scores_BNLS
        more = () if self.hook.learned is None else (learned,)
        changed = self.hook.score(scores_BNLS, query[:, None, :, None], key[:, None, None, :], self.config, *more)
        if changed.shape != scores_BNLS.shape:
            expected = f"return scores of the shape it was given, {scores_BNLS.shape}"
            raise UserError(f"attention: score must {expected}; got {changed.shape}")
        return changed.astype(scores_BNLS.dtype)

    def sink_logits(self, num_heads: int, learned: Learned) -> mx.array | None:
        """The virtual key's logit in each head, [N], or None without one; float64 if what is learned is."""
        if self.hook.sink_logit is None:
            return None
        more = () if self.hook.learned is None else (learned,)
        logits = mx.array(self.hook.sink_logit(self.config, *more))
        kept = logits if logits.dtype == mx.float64 else logits.astype(mx.float32)
        return mx.broadcast_to(kept, (num_heads,))


def exact(array: Any) -> mx.array:
    """A NumPy array in MLX's float64, which CPUs alone have."""
    return mx.array(np.asarray(array, dtype=np.float64), dtype=mx.float64)
