"""Implementations that are wrong in one way each, registered for a test; the published mistakes among them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import mlx.core as mx
import pytest

from zoo.attention import registry
from zoo.attention.mechanism import Mechanism
from zoo.attention.pattern import CacheBound, pattern_mechanism
from zoo.attention.variants.sliding_window import SlidingWindowConfig, allowed
from zoo.ops import band, softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.softmax import ScoreSpec

WINDOW = 5


def heads_as_sequence(q_BNLH: mx.array, k_BNLH: mx.array, v_BNLH: mx.array, spec: ScoreSpec) -> mx.array:
    """The flash comparison: [B, L, N, H] goes in where [B, N, L, H] is meant."""
    q, k, v = (array.swapaxes(1, 2) for array in (q_BNLH, k_BNLH, v_BNLH))
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale).swapaxes(1, 2)


def untransposed_values(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """AttnBench: [B, S, K, H] is reshaped to [B, K, S, H]."""
    return softmax.manual(q_BNLH, k_BKSH, v_BKSH.swapaxes(1, 2).reshape(v_BKSH.shape), spec)


def padded_keys(q_BNLH: mx.array, k_BNLH: mx.array, v_BNLH: mx.array, spec: ScoreSpec) -> mx.array:
    """AttnBench: keys before the text are vectors of -1e9, which win wherever sum(q) < 0."""
    L = q_BNLH.shape[2]
    index_LW = mx.arange(L)[:, None] + mx.arange(WINDOW)[None]
    before = [(0, 0), (0, 0), (WINDOW - 1, 0), (0, 0)]
    k_BNLWH = mx.take(mx.pad(k_BNLH, before, constant_values=mx.array(-1e9, k_BNLH.dtype)), index_LW, axis=2)
    v_BNLWH = mx.take(mx.pad(v_BNLH, before), index_LW, axis=2)
    scores_BNLW = (k_BNLWH @ q_BNLH[..., None])[..., 0] * spec.scale
    return (mx.softmax(scores_BNLW, axis=-1)[..., None, :] @ v_BNLWH)[..., 0, :]


def window_off_by_one(q_BNLH: mx.array, k_BKLH: mx.array, v_BKLH: mx.array, spec: ScoreSpec, *, by: int) -> mx.array:
    """The band itself is right, for another window; as if written by hand, without asking the pattern."""
    other = ScoreSpec(scale=spec.scale, mask=spec.mask, pattern=lambda query, key: abs(query - key) < WINDOW + by)
    return softmax.manual(q_BNLH, k_BKLH, v_BKLH, other)


def future_leak(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Never hides the future."""
    return softmax.manual(q_BNLH, k_BKSH, v_BKSH, ScoreSpec(scale=spec.scale, mask=MaskSpec(causal=False)))


def batch_leak(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Every row reads the values of the row before it."""
    return softmax.manual(q_BNLH, k_BKSH, mx.roll(v_BKSH, 1, axis=0), spec)


def missing_scale(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Scores a tenth too large."""
    return softmax.manual(1.1 * q_BNLH, k_BKSH, v_BKSH, spec)


def another_gradient(changed: Callable[[mx.array], mx.array]) -> Any:
    """A function that returns its argument, with another gradient."""
    same = mx.custom_function(lambda x: x * 1)
    same.vjp(lambda x, cotangent, output: changed(cotangent))
    return same


def wrong_gradient(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Right values; the gradient of the keys is two per cent too small."""
    return softmax.manual(q_BNLH, another_gradient(lambda cotangent: 0.98 * cotangent)(k_BKSH), v_BKSH, spec)


def gradient_leak(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Right values; a tenth of the gradient of the keys reaches another row too."""
    leaking = another_gradient(lambda cotangent_BKSH: cotangent_BKSH + 0.1 * mx.roll(cotangent_BKSH, 1, axis=0))
    return softmax.manual(q_BNLH, leaking(k_BKSH), v_BKSH, spec)


def no_gradient(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Right values; no gradient reaches the queries."""
    return softmax.manual(mx.stop_gradient(q_BNLH), k_BKSH, v_BKSH, spec)


def repeated_in_turn(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Query head n reads key/value head n mod K, not n // (N / K): right at the first head and at the last."""
    groups = q_BNLH.shape[1] // k_BKSH.shape[1]
    return softmax.manual(q_BNLH, mx.tile(k_BKSH, (1, groups, 1, 1)), mx.tile(v_BKSH, (1, groups, 1, 1)), spec)


def half_precision(q_BNLH: mx.array, k_BKSH: mx.array, v_BKSH: mx.array, spec: ScoreSpec) -> mx.array:
    """Computes in bfloat16 what was asked for in float32."""
    halves = (array.astype(mx.bfloat16) for array in (q_BNLH, k_BKSH, v_BKSH))
    return softmax.manual(*halves, spec).astype(q_BNLH.dtype)


Faults = Mapping[str, Callable[..., mx.array]]
_WRONG = (heads_as_sequence, untransposed_values, future_leak, batch_leak, missing_scale, half_precision)
FULL: Faults = {each.__name__: each for each in _WRONG}
WINDOWED: Faults = {
    "padded_keys": padded_keys,
    "window_too_long": partial(window_off_by_one, by=1),
    "window_too_short": partial(window_off_by_one, by=-1),
}
GROUPED: Faults = {"repeated_in_turn": repeated_in_turn}
GRADIENT: Faults = {each.__name__: each for each in (wrong_gradient, gradient_leak, no_gradient)}


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the mechanisms `faulty` (full attention) and `faulty_window`, beside a right implementation each."""
    right = partial(band.chunked, window_size=WINDOW)
    full, window = (
        {name: lambda _, op=op: op for name, op in ops.items()}
        for ops in ({"right": softmax.fused, **FULL, **GROUPED, **GRADIENT}, {"right": right, **WINDOWED})
    )
    added = {
        "faulty": pattern_mechanism(name="faulty", allowed=None, implementations=full),
        "faulty_window": pattern_mechanism(
            name="faulty_window",
            allowed=allowed,
            config=SlidingWindowConfig,
            implementations=window,
            cache_bound=lambda config: CacheBound(max_size=config.window_size),
        ),
    }
    every: dict[str, Mechanism] = {**registry.mechanisms(), **added}
    monkeypatch.setattr(registry, "mechanisms", lambda: every)


def mapping(fault: str) -> dict[str, Any]:
    """The variant of a fault, or of the right implementation beside it."""
    if fault not in WINDOWED and fault != "right_window":
        return {"name": fault, "mechanism": "faulty", "implementation": fault}
    implementation = "right" if fault == "right_window" else fault
    return {"name": fault, "mechanism": "faulty_window", "implementation": implementation, "window_size": WINDOW}
