"""Softmax attention under a pattern: the reference, and the dense implementations that every pattern gets for free.

    y_i = sum_j softmax_j(scale * q_i·k_j + bias_ij) v_j      over the keys j that the pattern and the mask allow

Vaswani et al., "Attention Is All You Need", https://arxiv.org/abs/1706.03762; grouped heads: Ainslie et al.,
"GQA", https://arxiv.org/abs/2305.13245; the optional bias is ALiBi's, -slope_n · |i - j|: Press et al., "Train
Short, Test Long", https://arxiv.org/abs/2108.12409. A mechanism may change the scores before the bias and add a
virtual key (`zoo.ops.scores`).

Letters: B batch, L query length, S key length, N query heads, K key/value heads, G = N / K queries per key/value
head, H head_dim. A row that may attend to nothing (padding) yields zeros from the reference and something finite
from the others.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import Pattern, batched, dense_mask, everything
from zoo.ops.scores import BoundHook, exact


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSpec:
    """Everything besides q, k and v that decides the scores.

    Attributes:
        scale: Factor on q·k, usually head_dim ** -0.5.
        mask: Causality, padding, documents, offset.
        pattern: The mechanism's own restriction on (query position, key position).
        slopes_N: ALiBi slopes, float32 [N], or None.
        key_positions: int32 [S] or [B, S] where the keys lie in a cache in another order than 0 … S-1 or with
            empty slots (negative); None for keys 0 … S-1.
        hook: What the mechanism does to its scores, or None.
        learned: What the hook learns, by name.
        config: The mechanism's parameters, for an op of its own.
    """

    scale: float
    mask: MaskSpec
    pattern: Pattern = everything
    slopes_N: mx.array | None = None
    key_positions: mx.array | None = None
    hook: BoundHook | None = None
    learned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Any = None

    def visible(self, query_length: int, key_length: int) -> mx.array:
        """What each query may attend to by pattern, mask and cache: bool [1 or B, 1, L, S]."""
        positions = self.mask.positions(query_length), self.resolved_key_positions(key_length)
        return dense_mask(self.pattern, self.mask, *positions)

    def with_learned(self, arrays: Sequence[Any], num_heads: int) -> "ScoreSpec":
        """This one with what the hook learns, in the order in which the hook names it; MLX arrays in float32."""
        assert self.hook is not None
        full = [array.astype(mx.float32) if isinstance(array, mx.array) else array for array in arrays]
        return dataclasses.replace(self, learned=dict(zip(self.hook.initial(num_heads), full, strict=True)))

    def sink_logits(self, num_heads: int) -> mx.array | None:
        """The virtual key's logit in each head, [N], or None without one."""
        return None if self.hook is None else self.hook.sink_logits(num_heads, self.learned)

    def resolved_key_positions(self, key_length: int) -> mx.array:
        """int32 [S] or [B, S]: the position of each key."""
        return mx.arange(key_length, dtype=mx.int32) if self.key_positions is None else self.key_positions

    def is_self_attention(self, query_length: int, key_length: int) -> bool:
        """Whether queries and keys are the same tokens 0 … L-1, as in training; not so when decoding from a cache."""
        unshifted = isinstance(self.mask.offset, int) and self.mask.offset == 0
        return unshifted and self.key_positions is None and query_length == key_length


def reference(q_BNLH: np.ndarray, k_BKSH: np.ndarray, v_BKSH: np.ndarray, spec: ScoreSpec) -> np.ndarray:
    """Dense softmax attention in float64 NumPy: the meaning that every implementation is held to.

    Args:
        q_BNLH: Queries.
        k_BKSH: Keys; K divides N, and query head n reads key/value head n // (N / K).
        v_BKSH: Values.
        spec: Scale, mask, pattern and bias.

    Returns:
        float64 [B, N, L, H].
    """
    q, k, v = (np.asarray(array, dtype=np.float64) for array in (q_BNLH, k_BKSH, v_BKSH))
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    query_positions = spec.mask.positions(q.shape[2])
    key_positions = spec.resolved_key_positions(k.shape[2])
    allowed = np.array(spec.visible(q.shape[2], k.shape[2]))
    scores = spec.scale * (q @ k.swapaxes(-1, -2))
    sink: float | np.ndarray = -np.inf
    if spec.hook is not None:
        with mx.stream(mx.cpu):
            learned = {name: exact(array) for name, array in spec.learned.items()}
            positions = batched(query_positions), batched(key_positions)
            scores = np.array(spec.hook.changed(exact(scores), *positions, learned))
            logits_N = spec.hook.sink_logits(q.shape[1], learned)
            if logits_N is not None:
                sink = np.array(logits_N, dtype=np.float64)[:, None, None]
    if spec.slopes_N is not None:
        scores = scores + np.array(alibi_bias(spec.slopes_N, query_positions, key_positions), dtype=np.float64)
    scores = np.where(allowed, scores, -np.inf)
    peak = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    weights = np.exp(scores - peak)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sink - peak)
    y: np.ndarray = weights / np.where(total == 0, 1.0, total) @ v
    return y


def manual(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Materialises the score matrix; softmax in float32."""
    B, N, L, _ = q_BNLH.shape
    S = k_BKSH.shape[2]
    scores_BNLS = scaled_products(q_BNLH, k_BKSH, spec)
    bias = dense_bias(spec, L, S)
    if spec.hook is not None:
        positions = batched(spec.mask.positions(L)), batched(spec.resolved_key_positions(S))
        scores_BNLS = spec.hook.changed(scores_BNLS, *positions, spec.learned)
    if bias is not None:
        # What a hook makes of a hidden score must not matter, so hidden ones are replaced and not added to.
        hidden = bias == mx.finfo(mx.float32).min
        scores_BNLS = scores_BNLS + bias if spec.hook is None else mx.where(hidden, bias, scores_BNLS + bias)
    sink_N = spec.sink_logits(N)
    if sink_N is not None:
        sink_BNL1 = mx.broadcast_to(sink_N[None, :, None, None], (B, N, L, 1))
        scores_BNLS = mx.concatenate([scores_BNLS, sink_BNL1], axis=-1)
    return weighted_values(mx.softmax(scores_BNLS, axis=-1)[..., :S], v_BKSH)


def scaled_products(q_BNLH: mx.array, k_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Scale * q·k, float32 [B, N, L, S]; grouped heads by broadcasting, never by tiling k."""
    B, N, L, H = q_BNLH.shape
    K, S = k_BKSH.shape[1], k_BKSH.shape[2]
    q_BKGLH = (q_BNLH * spec.scale).reshape(B, K, N // K, L, H)
    scores_BKGLS = q_BKGLH @ k_BKSH[:, :, None].swapaxes(-1, -2)
    return scores_BKGLS.reshape(B, N, L, S).astype(mx.float32)


def weighted_values(weights_BNLS: mx.array, v_BKSH: mx.array) -> mx.array:
    """Sums of the values by weights of any dtype, [B, N, L, H] in the dtype of v; grouped heads as above."""
    B, N, L, S = weights_BNLS.shape
    K, H = v_BKSH.shape[1], v_BKSH.shape[3]
    y_BKGLH = weights_BNLS.astype(v_BKSH.dtype).reshape(B, K, N // K, L, S) @ v_BKSH[:, :, None]
    return y_BKGLH.reshape(B, N, L, H)


def fused(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """`mx.fast.scaled_dot_product_attention`; its "causal" path where nothing else restricts the scores.

    It knows of a virtual key, and of no other change of the scores: those take `manual`.
    """
    if spec.hook is not None and spec.hook.changes_scores:
        return manual(q_BNLH, k_BKSH, v_BKSH, spec)
    mask = fused_mask(spec, q_BNLH.shape[2], k_BKSH.shape[2], q_BNLH.dtype)
    sink_N = spec.sink_logits(q_BNLH.shape[1])
    sinks = None if sink_N is None else sink_N.astype(q_BNLH.dtype)
    return mx.fast.scaled_dot_product_attention(q_BNLH, k_BKSH, v_BKSH, scale=spec.scale, mask=mask, sinks=sinks)


def fused_mask(spec: ScoreSpec, L: int, S: int, dtype: mx.Dtype) -> mx.array | str | None:
    """The cheapest mask that says the same to `mx.fast`: None, "causal", a boolean or an additive array."""
    unrestricted = spec.pattern is everything and spec.mask.is_plain and spec.slopes_N is None
    ordered = spec.key_positions is None and isinstance(spec.mask.offset, int) and spec.mask.offset + L == S
    if unrestricted and ordered:
        return "causal" if spec.mask.causal and L > 1 else None
    if unrestricted and not spec.mask.causal and spec.key_positions is None:
        return None
    if spec.slopes_N is not None:
        bias = dense_bias(spec, L, S)
        return None if bias is None else bias.astype(dtype)
    return dense_mask(spec.pattern, spec.mask, spec.mask.positions(L), spec.resolved_key_positions(S))


def dense_bias(spec: ScoreSpec, L: int, S: int) -> mx.array | None:
    """What to add to the scores: 0 or the lowest finite number from the mask, plus ALiBi.

    The lowest finite number instead of -inf keeps rows that may attend to nothing finite.

    Returns:
        float32 [1 or B, 1 or N, L, S], or None if nothing restricts the scores.
    """
    query_positions, key_positions = spec.mask.positions(L), spec.resolved_key_positions(S)
    bias = None if spec.slopes_N is None else alibi_bias(spec.slopes_N, query_positions, key_positions)
    free = spec.pattern is everything and not spec.mask.causal and spec.mask.is_plain and spec.key_positions is None
    if free:
        return bias
    allowed = dense_mask(spec.pattern, spec.mask, query_positions, key_positions)
    zero = mx.array(0.0, dtype=mx.float32) if bias is None else bias
    return mx.where(allowed, zero, mx.finfo(mx.float32).min)


def alibi_bias(slopes_N: mx.array, query_positions: mx.array, key_positions: mx.array) -> mx.array:
    """ALiBi's bias -slope_n · |i - j|, float32 [1 or B, N, L, S]."""
    query, key = batched(query_positions), batched(key_positions)
    distance_BLS = mx.abs(query[:, :, None] - key[:, None, :]).astype(mx.float32)
    return -slopes_N[None, :, None, None] * distance_BLS[:, None]
