"""Softmax mechanisms from a pattern: the layer, its caches, and the `masked` and `tiled` implementations for free.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from zoo.attention.interface import Cache, Capabilities, LayerShape
from zoo.attention.mechanism import HeadGrouping, Mechanism, Op, sample_qkv
from zoo.attention.projected import ProjectedAttention
from zoo.config import UserError
from zoo.layers.caches import KVCache, RotatingKVCache, slot_positions
from zoo.ops import softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern, Pattern, count_scores, everything
from zoo.ops.tiled import tiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternConfig(HeadGrouping):
    """Parameters of a pattern that has none of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheBound:
    """How many tokens a bounded cache holds: the first `keep` and the latest `max_size - keep`."""

    max_size: int
    keep: int = 0


def pattern_mechanism(
    *,
    name: str,
    allowed: Callable[[Any, Any, Any], Any] | None,
    config: type[Any] = PatternConfig,
    implementations: Mapping[str, Callable[[Any], Op]] | None = None,
    cache_bound: Callable[[Any], CacheBound | None] | None = None,
    bidirectional: bool = True,
) -> Mechanism:
    """Makes a mechanism of a pattern.

    Args:
        name: Registry name.
        allowed: `allowed(query_index, key_index, config)` on broadcast integer arrays; None allows everything.
        config: Frozen dataclass of parameters, a subclass of `HeadGrouping`.
        implementations: Faster ways, put before the free `masked` and `tiled`.
        cache_bound: What a causal decoder needs to keep, if not everything.
        bidirectional: Whether the pattern restricts the keys after a query too, so that encoders may use it.

    Returns:
        The mechanism, for the registry.
    """
    free: dict[str, Callable[[Any], Op]] = {"masked": lambda _: softmax.fused, "tiled": lambda _: tiled}
    every = {**(implementations or {}), **free}
    bound_of = cache_bound or (lambda _: None)

    def pattern_of(parameters: Any) -> Pattern:
        return everything if allowed is None else BoundPattern(allowed, parameters)

    def capabilities_of(parameters: Any, implementation: str) -> Capabilities:
        bounded = bound_of(parameters) is not None
        return Capabilities(
            causal=True,
            bidirectional=bidirectional,
            decode=True,
            exact_class=name,
            trimmable=not bounded,
            bounded_cache=bounded,
        )

    def spec_of(parameters: Any, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None = None) -> softmax.ScoreSpec:
        return softmax.ScoreSpec(scale=head_dim**-0.5, mask=mask, pattern=pattern_of(parameters), slopes_N=slopes_N)

    def build(parameters: Any, implementation: str, shape: LayerShape) -> PatternAttention:
        return PatternAttention(
            capabilities_of(parameters, implementation),
            shape,
            num_kv_heads=parameters.resolve(shape),
            pattern=pattern_of(parameters),
            op=every[implementation](parameters),
            bound=bound_of(parameters),
        )

    return Mechanism(
        name=name,
        config=config,
        implementations=every,
        capabilities=capabilities_of,
        build=build,
        make_spec=spec_of,
        reference=softmax.reference,
        sample_inputs=sample_qkv,
        pattern=allowed,
    )


class PatternAttention(ProjectedAttention):
    """Softmax attention over what a pattern allows, computed by one of its implementations."""

    def __init__(
        self,
        capabilities: Capabilities,
        shape: LayerShape,
        *,
        num_kv_heads: int,
        pattern: Pattern,
        op: Op,
        bound: CacheBound | None,
    ) -> None:
        """Keeps what `pattern_mechanism` resolved; see there."""
        super().__init__(capabilities, shape, num_kv_heads)
        self._pattern = pattern
        self._op = op
        self._bound = bound

    def mix(
        self, q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, *, mask: MaskSpec, cache: Cache | None
    ) -> mx.array:
        spec = softmax.ScoreSpec(
            scale=self.shape.head_dim**-0.5, mask=mask, pattern=self._pattern, slopes_N=self._slopes_N
        )
        if cache is None:
            return self._op(q_BNLH, k_BKLH, v_BKLH, spec)
        first = cache.empty()
        k_BKSH, v_BKSH = cache.update_and_fetch(k_BKLH, v_BKLH)
        if first:
            return self._op(q_BNLH, k_BKLH, v_BKLH, spec)
        if isinstance(cache, KVCache):
            return softmax.fused(q_BNLH, k_BKSH, v_BKSH, spec)
        spec = dataclasses.replace(spec, key_positions=slot_positions(cache, k_BKSH.shape[2]))
        return softmax.fused(q_BNLH, k_BKSH, v_BKSH, spec)

    def mixing_flops(self, *, query_length: int, key_length: int) -> int:
        scores = count_scores(self._pattern, causal=self.shape.causal, query_length=query_length, key_length=key_length)
        return 4 * self.shape.num_heads * self.shape.head_dim * scores

    def make_cache(self) -> Cache:
        if not self.shape.causal:
            raise UserError("attention: only causal models can decode; this layer belongs to an encoder")
        if self._bound is None:
            return KVCache()
        return RotatingKVCache(max_size=self._bound.max_size, keep=self._bound.keep)

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        slots = -(-length // KVCache.step) * KVCache.step
        if self._bound is not None:
            slots = min(slots, self._bound.max_size)
        return 2 * batch_size * self.num_kv_heads * slots * self.shape.head_dim * dtype.size
