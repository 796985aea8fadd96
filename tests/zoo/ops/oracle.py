"""Holds softmax-like ops to a float64 reference: values, gradients and peak memory."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from zoo.attention import mechanism
from zoo.ops import softmax
from zoo.ops.masks import MaskSpec

Op = Callable[..., mx.array]
Reference = Callable[..., np.ndarray]


def qkv(
    seed: int, *, B: int = 2, N: int = 6, K: int | None = None, L: int, S: int | None = None, H: int = 10
) -> list[np.ndarray]:
    """Standard-normal queries [B, N, L, H], keys and values [B, K, S, H], float32."""
    generator = np.random.default_rng(seed)
    K, S = N if K is None else K, L if S is None else S
    return [generator.standard_normal(shape).astype(np.float32) for shape in ((B, N, L, H), (B, K, S, H), (B, K, S, H))]


def variant(name: str, implementation: str, mask: MaskSpec, *, H: int = 10, **parameters: Any) -> tuple[Op, Any]:
    """Op and spec of a mechanism with the given parameters."""
    declared = mechanism(name)
    slopes_N = parameters.pop("slopes_N", None)
    config = declared.config(**parameters)
    return declared.implementations[implementation](config), declared.make_spec(config, mask, H, slopes_N)


def value_error(op: Op, arrays: list[np.ndarray], spec: Any, reference: Reference = softmax.reference) -> float:
    """Largest absolute difference to the reference where a row is no padding; infinite if anything is not finite."""
    actual = np.array(op(*[mx.array(array) for array in arrays], spec))
    expected = reference(*arrays, spec)
    assert actual.shape == expected.shape
    if not np.isfinite(actual).all():
        return float("inf")
    return float(np.abs((actual - expected) * _valid(spec.mask, expected.shape)).max())


def gradients(op: Op, arrays: list[np.ndarray], spec: Any, cotangent: np.ndarray) -> list[np.ndarray]:
    """Gradients of sum(y * cotangent)."""

    def loss(*inputs: mx.array) -> mx.array:
        return (op(*inputs, spec) * mx.array(cotangent.astype(np.float32))).sum()

    found = mx.grad(loss, argnums=tuple(range(len(arrays))))(*[mx.array(array) for array in arrays])
    return [np.array(gradient, dtype=np.float64) for gradient in found]


def gradient_error(op: Op, arrays: list[np.ndarray], spec: Any, reference: Reference = softmax.reference) -> float:
    """Largest difference, relative above 1, to the reference's central differences in a random direction each."""
    generator = np.random.default_rng(11)
    shape = arrays[0].shape
    cotangent = generator.standard_normal(shape) * _valid(spec.mask, shape)
    worst = 0.0
    for index, gradient in enumerate(gradients(op, arrays, spec, cotangent)):
        direction = generator.standard_normal(arrays[index].shape)
        direction /= np.linalg.norm(direction)
        # The difference errs by about step² and by rounding / step, both near 1e-10.
        step, ends = 1e-5, []
        for sign in (1, -1):
            moved = [array.astype(np.float64) for array in arrays]
            moved[index] = moved[index] + sign * step * direction
            ends.append((reference(*moved, spec) * cotangent).sum())
        expected = (ends[0] - ends[1]) / (2 * step)
        error = abs((gradient * direction).sum() - expected) / max(1.0, abs(expected))
        worst = max(worst, float(error))
    return worst


def repeated(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The same attention with keys and values repeated for every query head."""
    q, k, v = arrays
    groups = q.shape[1] // k.shape[1]
    return [q, np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)]


def peak_bytes(
    op: Op, spec: Any, *, B: int = 1, N: int, L: int, H: int, compiled: bool = False, num_runs: int = 5
) -> int:
    """Most memory that values and gradients of q, k and v need at once, beyond their inputs.

    How far MLX plans ahead of its worker varies with the machine's load, and so does what is alive at once: the most
    of several runs repeats, any one does not. Where one array is most of it, one run does.
    """
    inputs = [mx.array(array) for array in (*qkv(0, B=B, N=N, L=L, H=H), qkv(1, B=B, N=N, L=L, H=H)[0])]

    def loss(q: mx.array, k: mx.array, v: mx.array, cotangent: mx.array) -> mx.array:
        return (op(q, k, v, spec) * cotangent).sum()

    both = mx.value_and_grad(loss, argnums=(0, 1, 2))
    if compiled:
        both = mx.compile(both)
    peaks = []
    for _ in range(num_runs):
        mx.synchronize()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(both(*inputs))
        mx.synchronize()
        peaks.append(mx.get_peak_memory() - before)
    return max(peaks)


def _valid(mask: MaskSpec, shape: tuple[int, ...]) -> np.ndarray:
    """1 for rows inside the text, 0 for padding, broadcasting with [B, N, L, H]."""
    if mask.lengths_B is None:
        return np.ones(shape)
    return (np.arange(shape[2]) < np.array(mask.lengths_B)[:, None])[:, None, :, None]
