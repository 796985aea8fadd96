"""Mechanisms over queries, keys and values: the mixer and its caches for free.

Of a softmax under a pattern, so are the reference and the implementations `masked`, `tiled`, `native` and
`auto`.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from zoo.attention.calibration import load_calibration
from zoo.attention.choice import Chooser, Member
from zoo.attention.choosing import ChoosingMixer, choosing_op
from zoo.attention.interface import Cache, Capabilities, LayerShape, Mixer
from zoo.attention.mechanism import AUTO, NATIVE, HeadGrouping, Mechanism, Op, sample_qkv
from zoo.layers.caches import KVCache, RotatingKVCache, slot_positions
from zoo.ops import gathered, softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.native import native
from zoo.ops.patterns import BoundPattern, count_scores, everything
from zoo.ops.scores import BoundHook, Learned, ScoreHook
from zoo.ops.tiled import tiled

# Of a text of any length, enough to tell how many keys a query sees; counted in a tenth of a second.
_SAMPLED_QUERIES, _SAMPLED_KEYS = 64, 2**17
# Of an op, for its backward pass: all scores, none, those that the pattern allows, or keys and values for each of them.
_Kept = Literal["scores", "nothing", "seen", "copies"]


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
    hook: ScoreHook | None = None,
    implementations: Mapping[str, Callable[[Any], Op]] | None = None,
    cache_bound: Callable[[Any], CacheBound | None] | None = None,
    bidirectional: bool = True,
) -> Mechanism:
    """Makes a mechanism of a pattern.

    Args:
        name: Registry name.
        allowed: `allowed(query_index, key_index, config)` on broadcast integer arrays; None allows everything.
        config: Frozen dataclass of parameters, a subclass of `HeadGrouping`.
        hook: What becomes of the scores before the softmax, if anything.
        implementations: Faster ways, put before the free `masked`, `tiled` and `native`; what the hook says, they have
            to do too. Where it changes the scores there is no `native`, whose kernels know of no such function.
        cache_bound: What a causal decoder needs to keep, if not everything.
        bidirectional: Whether the pattern restricts the keys after a query too, so that encoders may use it.

    Returns:
        The mechanism, for the registry.
    """
    free: dict[str, Callable[[Any], Op]] = {"masked": lambda _: softmax.fused, "tiled": lambda _: tiled}
    if hook is None or hook.score is None:
        free[NATIVE] = lambda _: native
    learns = hook is not None and hook.learned is not None
    every = {
        key: functools.partial(_learning_op, factory) if learns else factory
        for key, factory in {**(implementations or {}), **free}.items()
    }
    every[AUTO] = lambda parameters: choosing_op(chooser_of(parameters))
    bound_of = cache_bound or (lambda _: None)

    def chooser_of(parameters: Any) -> Chooser:
        return Chooser([Member(declared=declared, parameters=parameters)], load_calibration(None))

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
        return softmax.ScoreSpec(
            scale=head_dim**-0.5,
            mask=mask,
            pattern=everything if allowed is None else BoundPattern(allowed, parameters),
            slopes_N=slopes_N,
            hook=None if hook is None else BoundHook(hook, parameters),
        )

    def mixer(parameters: Any, implementation: str, shape: LayerShape) -> Mixer:
        if implementation == AUTO:
            return ChoosingMixer(capabilities_of(parameters, AUTO), chooser_of(parameters), shape)
        return PatternMixer(
            capabilities_of(parameters, implementation),
            shape,
            spec=spec_of(parameters, MaskSpec(causal=shape.causal), shape.head_dim, shape.slopes),
            op=every[implementation](parameters),
            cached=every[NATIVE if implementation == NATIVE else "masked"](parameters),
            bound=bound_of(parameters),
        )

    declared = Mechanism(
        name=name,
        config=config,
        implementations=every,
        capabilities=capabilities_of,
        mixer=mixer,
        make_spec=spec_of,
        reference=_learning_reference if learns else softmax.reference,
        sample_inputs=sample_qkv,
        pattern=allowed,
        separate_heads=hook is None or hook.score is None,
        packaged=(NATIVE,) if NATIVE in free else (),
        learned=None if hook is None else hook.learned,
        settle=None if hook is None else hook.settle,
    )
    return declared


def op_mechanism(
    *,
    name: str,
    op: Op,
    reference: Callable[..., np.ndarray],
    config: type[Any] = PatternConfig,
    allowed: Callable[[Any, Any, Any], Any] | None = None,
    learned: Callable[[Any, int], Learned] | None = None,
    bidirectional: bool = True,
) -> Mechanism:
    """Makes a mechanism of an op on queries, keys and values that is no softmax; its cache holds keys and values.

    Args:
        name: Registry name, and that of its one implementation.
        op: `op(q_BNLH, k_BKSH, v_BKSH, spec) -> y_BNLH`, where `spec` is a `ScoreSpec`: `spec.visible` says which keys
            a query may see, and `spec.config` holds the parameters.
        reference: The same in float64 NumPy.
        config: Frozen dataclass of parameters, a subclass of `HeadGrouping`.
        allowed: The pattern; None allows everything.
        learned: `learned(config, num_heads)` -> initial values by name, which op and reference take before the spec.
        bidirectional: Whether encoders may use it.

    Returns:
        The mechanism, for the registry.
    """
    pattern = pattern_mechanism(name=name, allowed=allowed, config=config, bidirectional=bidirectional)
    hook = None if learned is None else ScoreHook(learned=learned)

    def capabilities_of(parameters: Any, implementation: str) -> Capabilities:
        # The op knows nothing of ALiBi's slopes.
        return dataclasses.replace(pattern.capabilities(parameters, implementation), alibi=False)

    def spec_of(parameters: Any, mask: MaskSpec, head_dim: int, slopes_N: mx.array | None = None) -> softmax.ScoreSpec:
        bound = None if hook is None else BoundHook(hook, parameters)
        spec = pattern.make_spec(parameters, mask, head_dim, slopes_N)
        return dataclasses.replace(spec, config=parameters, hook=bound)

    def mixer(parameters: Any, implementation: str, shape: LayerShape) -> PatternMixer:
        spec = spec_of(parameters, MaskSpec(causal=shape.causal), shape.head_dim)
        return PatternMixer(capabilities_of(parameters, implementation), shape, spec=spec, op=op, cached=op)

    return dataclasses.replace(
        pattern,
        implementations={name: lambda _: op},
        packaged=(),
        capabilities=capabilities_of,
        mixer=mixer,
        make_spec=spec_of,
        reference=reference,
        learned=learned,
    )


def _kept_by(op: Op) -> _Kept:
    op = inspect.unwrap(op)
    function = op.func if isinstance(op, functools.partial) else op
    if function in (softmax.fused, softmax.manual):
        return "scores"
    if function in (gathered.gather_slices, gathered.gather_index):
        return "copies"
    return "nothing" if function in (tiled, native) else "seen"


def _learning_op(factory: Callable[[Any], Op], parameters: Any) -> Op:
    """An op that takes what the mechanism learns before its last argument, of one that finds it there."""
    op = factory(parameters)

    @functools.wraps(op)
    def learning(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, *rest: Any) -> mx.array:
        *arrays, spec = rest
        return op(q_BNLH, k_BKSH, v_BKSH, spec.with_learned(arrays, q_BNLH.shape[1]))

    return learning


def _learning_reference(q_BNLH: np.ndarray, k_BKSH: np.ndarray, v_BKSH: np.ndarray, *rest: Any) -> np.ndarray:
    *arrays, spec = rest
    return softmax.reference(q_BNLH, k_BKSH, v_BKSH, spec.with_learned(arrays, q_BNLH.shape[1]))


class PatternMixer(Mixer):
    """An op on queries, keys and values under a pattern, and a cache that holds the last two."""

    def __init__(
        self,
        capabilities: Capabilities,
        shape: LayerShape,
        *,
        spec: softmax.ScoreSpec,
        op: Op,
        cached: Op,
        bound: CacheBound | None = None,
    ) -> None:
        """Binds the ops.

        Args:
            capabilities: What the mechanism can do.
            shape: The model around it.
            spec: The op's last argument, but for the mask of each call.
            op: Computes a whole sequence.
            cached: Computes the tokens after a history, whose keys may lie in any order.
            bound: What a decoder needs to keep, if not everything.
        """
        super().__init__(capabilities, shape)
        self._spec = spec
        self._op = op
        self._cached = cached
        self._bound = bound
        self._kept = _kept_by(op)

    def learned(self) -> Learned:
        return {} if self._spec.hook is None else self._spec.hook.initial(self.shape.num_heads)

    def __call__(self, *inputs: mx.array, mask: MaskSpec, cache: Cache | None, training: bool) -> mx.array:
        q_BNLH, k_BKLH, v_BKLH, *learned = inputs
        spec = dataclasses.replace(self._spec, mask=mask)
        if cache is None:
            return self._op(*inputs, spec)
        first = cache.empty()
        k_BKSH, v_BKSH = cache.update_and_fetch(k_BKLH, v_BKLH)
        if first:
            return self._op(*inputs, spec)
        if not isinstance(cache, KVCache):
            spec = dataclasses.replace(spec, key_positions=slot_positions(cache, k_BKSH.shape[2]))
        return self._cached(q_BNLH, k_BKSH, v_BKSH, *learned, spec)

    def flops(self, *, query_length: int, key_length: int) -> int:
        scores = count_scores(
            self._spec.pattern, causal=self.shape.causal, query_length=query_length, key_length=key_length
        )
        return 4 * self.shape.num_heads * self.shape.head_dim * scores

    def kept_numbers(self, *, batch_size: int, length: int) -> int:
        H = self.shape.head_dim
        # What the last queries see, which see the most.
        queries, keys = min(length, _SAMPLED_QUERIES), min(length, _SAMPLED_KEYS)
        seen = (
            count_scores(self._spec.pattern, causal=self.shape.causal, query_length=queries, key_length=keys) // queries
        )
        # Measured: besides the scores that are seen, the keys and values of neighbours.
        by_kind = {"scores": length, "nothing": H, "copies": 2 * seen * H, "seen": 2 * H + 3 * seen // 2}
        return batch_size * self.shape.num_heads * length * by_kind[self._kept]

    def make_cache(self) -> Cache:
        if self._bound is None:
            return KVCache()
        return RotatingKVCache(max_size=self._bound.max_size, keep=self._bound.keep)

    def cache_bytes(self, *, batch_size: int, length: int, dtype: mx.Dtype) -> int:
        slots = -(-length // KVCache.step) * KVCache.step
        if self._bound is not None:
            slots = min(slots, self._bound.max_size)
        return 2 * batch_size * self.shape.num_kv_heads * slots * self.shape.head_dim * dtype.size
