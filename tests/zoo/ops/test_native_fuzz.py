"""Compiled attention on random shapes, patterns and masks, held to float64 in values and gradients.

`check(number)` tries one case; a campaign of thousands is a loop over numbers.
"""

import dataclasses
import functools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from zoo.layers.positions import alibi_slopes
from zoo.ops.masks import MaskSpec
from zoo.ops.native import native
from zoo.ops.patterns import everything
from zoo.ops.scores import BoundHook, ScoreHook
from zoo.ops.softmax import ScoreSpec, alibi_bias
from zoo.runtime.native import why_no_native

pytestmark = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))

# Of the largest sum of absolute terms in each result: where they cancel, only rounding is left. A score errs by its own
# rounding, and its exponential by as much.
RELATIVE = 2e-6
SIZES = (1, 2, 3, 5, 7, 8, 9, 10, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256)


@dataclasses.dataclass(frozen=True)
class RandomPattern:
    """Any function of two positions: a table of random bits, hashable as patterns are."""

    seed: int
    density: float

    @functools.cached_property
    def table(self) -> np.ndarray:
        return np.random.default_rng(self.seed).random((61, 61)) < self.density

    def __call__(self, query_index: Any, key_index: Any) -> Any:
        table = mx.array(self.table) if isinstance(query_index, mx.array) else self.table
        return table[query_index % 61, key_index % 61]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Whole tiles that are there or not, so that full, mixed and empty ones are among them."""

    seed: int
    size: int

    @functools.cached_property
    def table(self) -> np.ndarray:
        return np.random.default_rng(self.seed).random((7, 7)) < 0.5

    def __call__(self, query_index: Any, key_index: Any) -> Any:
        table = mx.array(self.table) if isinstance(query_index, mx.array) else self.table
        return table[query_index // self.size % 7, key_index // self.size % 7]


SINKS = ScoreHook(
    learned=lambda config, num_heads: {"sink": mx.zeros(num_heads)}, sink_logit=lambda config, learned: learned["sink"]
)


@dataclasses.dataclass
class Case:
    """One call: q, k, v, the cotangent, the spec and the virtual keys."""

    arrays: list[mx.array]
    cotangent: mx.array
    spec: ScoreSpec
    sinks: mx.array | None


def laid_out(generator: np.random.Generator, shape: tuple[int, ...], size: float) -> mx.array:
    """Normal numbers of a shape, in one of the layouts that arrays can have."""
    array = lambda shape: mx.array((size * generator.standard_normal(shape)).astype(np.float32))  # noqa: E731
    B, N, L, H = shape
    kind = generator.integers(7)
    if kind == 0:
        return array((B, L, N, H)).swapaxes(1, 2)
    if kind == 1:
        return array((B, N, H, L)).swapaxes(2, 3)
    if kind == 2:
        return array((B, N, 2 * L + 1, 3 * H))[:, :, 1::2, ::3]
    if kind == 3:
        return array((B, N, L, H))[:, :, ::-1, ::-1]
    if kind == 4:
        return mx.broadcast_to(array((1, 1, L, H)), shape)
    if kind == 5:
        return array((B + 1, N + 2, L + 3, H + 5))[1:, 2:, 3:, 5:]
    return array(shape)


def case(number: int) -> Case:
    generator = np.random.default_rng(number)
    integer = lambda low, high: int(generator.integers(low, high + 1))  # noqa: E731
    B, K, G = integer(1, 3), integer(1, 3), integer(1, 3) if generator.random() < 0.9 else 17
    H = int(generator.choice(SIZES))
    L = 1 if generator.random() < 0.2 else integer(1, 150)
    N, causal, kind = K * G, bool(generator.integers(2)), integer(0, 3)
    mask: dict[str, Any] = {"causal": causal}
    key_positions = None
    if kind == 0:
        # A whole text, perhaps padded or packed.
        S = L
        if generator.random() < 0.4:
            mask["lengths_B"] = mx.array(generator.integers(0, S + 1, B), dtype=mx.int32)
        if generator.random() < 0.4:
            mask["segments_BL"] = mx.array(np.sort(generator.integers(0, 5, (B, L)), axis=1), dtype=mx.int32)
    elif kind == 1:
        # After a history; bidirectional ones may see keys beyond the queries.
        offset = integer(0, 90)
        S, mask["offset"] = L + offset + (0 if causal else integer(0, 40)), offset
    elif kind == 2:
        # Rows with histories of their own.
        offsets = generator.integers(0, 60, B)
        S, mask["offset"] = L + int(offsets.max()), mx.array(offsets, dtype=mx.int32)
    else:
        # A ring of slots in any order, some of them empty.
        S = L + integer(0, 60)
        mask["offset"] = S - L
        positions = np.stack([generator.permutation(S) for _ in range(B)])
        positions[generator.random(positions.shape) < 0.2] = -1
        key_positions = mx.array(positions if generator.random() < 0.5 else positions[0], dtype=mx.int32)
    pattern = [everything, RandomPattern(number, 0.5), RandomPattern(number, 0.03), Blocks(number, integer(1, 70))][
        integer(0, 3)
    ]
    sinks = mx.array(generator.standard_normal(N).astype(np.float32)) if generator.random() < 0.3 else None
    spec = ScoreSpec(
        scale=float(H**-0.5),
        mask=MaskSpec(**mask),
        pattern=pattern,
        slopes_N=alibi_slopes(N) if generator.random() < 0.3 else None,
        key_positions=key_positions,
        hook=None if sinks is None else BoundHook(SINKS, None),
    )
    size = float(generator.choice([0.1, 1.0, 3.0]))
    arrays = [laid_out(generator, shape, size) for shape in ((B, N, L, H), (B, K, S, H), (B, K, S, H))]
    return Case(arrays, laid_out(generator, (B, N, L, H), 1.0), spec, sinks)


def exact(case: Case) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """y, dq, dk, dv and the gradient of the virtual keys in float64; the sums of their terms; the largest score."""
    q, k, v, dy = (np.array(array, dtype=np.float64) for array in (*case.arrays, case.cotangent))
    spec, (B, N, L, H), (K, S) = case.spec, q.shape, k.shape[1:3]
    k, v = (np.repeat(array, N // K, axis=1) for array in (k, v))
    scores = spec.scale * q @ k.swapaxes(-1, -2)
    if spec.slopes_N is not None:
        positions = spec.mask.positions(L), spec.resolved_key_positions(S)
        scores = scores + np.array(alibi_bias(spec.slopes_N, *positions), dtype=np.float64)
    visible = np.broadcast_to(np.array(spec.visible(L, S)), scores.shape)
    largest = float(np.abs(scores[visible]).max(initial=0.0))
    sink = np.full((1, N, 1, 1), -np.inf)
    if case.sinks is not None:
        sink = np.array(case.sinks, dtype=np.float64)[None, :, None, None]
    scores = np.where(visible, scores, -np.inf)
    peak = np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sink)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    weights, virtual = np.exp(scores - peak), np.exp(sink - peak)
    total = weights.sum(axis=-1, keepdims=True) + virtual
    total = np.where(total == 0, 1.0, total)
    weights, virtual = weights / total, virtual / total

    def results(q: np.ndarray, k: np.ndarray, v: np.ndarray, dy: np.ndarray, sign: int) -> list[np.ndarray]:
        """With sign -1 as the formula is; with 1, and absolute numbers, the sums of its terms."""
        y = weights @ v
        shared = (dy * y).sum(axis=-1, keepdims=True)
        dscores = spec.scale * weights * (dy @ v.swapaxes(-1, -2) + sign * shared)
        dk, dv = dscores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ dy
        dk, dv = (array.reshape(B, K, N // K, S, H).sum(axis=2) for array in (dk, dv))
        return [y, dscores @ k, dk, dv, sign * (virtual * shared).sum(axis=(0, 2, 3))]

    sizes = results(*(np.abs(array) for array in (q, k, v, dy)), sign=1)
    return results(q, k, v, dy, sign=-1), sizes, largest


def computed(case: Case) -> list[np.ndarray]:
    inputs = case.arrays if case.sinks is None else [*case.arrays, case.sinks]

    def op(*inputs: mx.array) -> mx.array:
        spec = case.spec if case.sinks is None else dataclasses.replace(case.spec, learned={"sink": inputs[3]})
        return native(*inputs[:3], spec)

    (y,), gradients = mx.vjp(lambda *inputs: [op(*inputs)], list(inputs), [case.cotangent])
    return [np.array(array) for array in (y, *gradients)]


def check(number: int) -> dict[str, float]:
    """Compares one case; returns the largest error of each result, in what is allowed."""
    tried = case(number)
    expected, sizes, largest_score = exact(tried)
    errors = {}
    for name, found, true, size in zip(
        ("y", "dq", "dk", "dv", "dsinks"), computed(tried), expected, sizes, strict=False
    ):
        assert found.shape == true.shape, (number, name)
        assert np.isfinite(found).all(), (number, name)
        allowed = RELATIVE * max(1.0, largest_score) * size.max(initial=1e-30)
        errors[name] = float(np.abs(found - true).max(initial=0.0) / allowed)
        assert errors[name] <= 1, (number, name, errors, largest_score)
    return errors


@pytest.mark.parametrize("number", range(60))
def test_any_shape_pattern_and_mask_is_the_float64_formula(number: int) -> None:
    check(number)
