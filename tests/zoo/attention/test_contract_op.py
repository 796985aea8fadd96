"""The contract of every op: it computes what its mechanism's float64 reference says, values and gradients."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.attention.cases import CASES, DIRECTED, HEAD_DIM, NUM_HEADS, Case, directed_id
from zoo.layers.positions import alibi_slopes
from zoo.ops import tiled
from zoo.ops.masks import MaskSpec

# Length 1, below the shrunk window or block (5), exactly on a border, just past one, and several blocks.
LENGTHS = [1, 3, 5, 11, 29]


def _inputs(case: Case, seed: int, batch_size: int, length: int, num_kv_heads: int = NUM_HEADS) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    arrays = case.samples(generator, batch_size, length, NUM_HEADS, num_kv_heads, HEAD_DIM)
    # Through float32, so that reference and op see the very same numbers.
    return [array.astype(np.float32) for array in arrays]


def _difference(
    case: Case, arrays: list[np.ndarray], mask: MaskSpec, dtype: mx.Dtype = mx.float32, **spec: Any
) -> float:
    rounded = [mx.array(array).astype(dtype) for array in arrays]
    exact = [np.array(array.astype(mx.float32)) for array in rounded]
    expected = case.mechanism.reference(*exact, case.spec(mask, **spec))
    actual = np.array(case.op()(*rounded, case.spec(mask, **spec)).astype(mx.float32))
    assert actual.shape == expected.shape
    valid = np.ones(expected.shape, dtype=bool)
    if mask.lengths_B is not None:
        valid &= np.arange(expected.shape[2])[None, None, :, None] < np.array(mask.lengths_B)[:, None, None, None]
    assert np.isfinite(actual).all(), "padding must stay finite"
    return float(np.abs(actual - expected)[valid].max())


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_values_equal_the_reference_at_every_length(case: Case, causal: bool, batch_size: int) -> None:
    for length in LENGTHS:
        arrays = _inputs(case, length, batch_size, length)
        assert _difference(case, arrays, MaskSpec(causal=causal)) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_bfloat16_values_equal_the_reference_of_the_rounded_inputs(case: Case, causal: bool) -> None:
    arrays = _inputs(case, 0, 2, 13)
    assert _difference(case, arrays, MaskSpec(causal=causal), mx.bfloat16) <= tolerance(mx.bfloat16)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_rows_whose_queries_sum_below_zero_are_right(case: Case, causal: bool) -> None:
    arrays = _inputs(case, 1, 2, 13)
    arrays[0] = -np.abs(arrays[0])
    assert _difference(case, arrays, MaskSpec(causal=causal)) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_grouped_heads_equal_the_reference(case: Case, causal: bool) -> None:
    if not case.capabilities.grouped_heads:
        with pytest.raises(ValueError, match="key/value heads"):
            case.layer(causal=causal, num_kv_heads=2)
        return
    for num_kv_heads in (1, 2, 3):
        arrays = _inputs(case, num_kv_heads, 2, 17, num_kv_heads)
        assert _difference(case, arrays, MaskSpec(causal=causal)) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_padding_and_documents_equal_the_reference(case: Case, causal: bool) -> None:
    arrays = _inputs(case, 2, 3, 19)
    if case.capabilities.padding:
        mask = MaskSpec(causal=causal, lengths_B=mx.array([19, 1, 8]))
        assert _difference(case, arrays, mask) <= tolerance(mx.float32)
    if case.capabilities.segments:
        segments = np.array([[0] * 7 + [1] * 12, [0] * 19, [0, 1, 2] + [3] * 9 + [4] * 7])
        mask = MaskSpec(causal=causal, segments_BL=mx.array(segments))
        assert _difference(case, arrays, mask) <= tolerance(mx.float32)


@pytest.mark.parametrize(("case", "causal"), [pair for pair in DIRECTED if pair[0].capabilities.alibi], ids=directed_id)
def test_alibi_equals_the_reference(case: Case, causal: bool) -> None:
    arrays = _inputs(case, 3, 2, 17, 2 if case.capabilities.grouped_heads else NUM_HEADS)
    mask = MaskSpec(causal=causal)
    assert _difference(case, arrays, mask, slopes_N=alibi_slopes(NUM_HEADS)) <= tolerance(mx.float32)


TILED = [pair for pair in DIRECTED if pair[0].implementation == "tiled"]


@pytest.mark.parametrize(("case", "causal"), TILED, ids=directed_id)
def test_many_tiles_equal_the_reference(case: Case, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SMALLEST_TILE", 8)
    arrays = _inputs(case, 9, 2, 29, 2)
    assert _difference(case, arrays, MaskSpec(causal=causal)) <= tolerance(mx.float32)
    test_gradients_equal_the_references_directional_derivatives(case, causal, True)


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gradients_equal_the_references_directional_derivatives(case: Case, causal: bool, compiled: bool) -> None:
    for length in (1, 3, 17):
        arrays = _inputs(case, 4, 2, length, 2 if case.capabilities.grouped_heads else NUM_HEADS)
        spec = case.spec(MaskSpec(causal=causal))
        generator = np.random.default_rng(5)
        expected_shape = case.mechanism.reference(*arrays, spec).shape
        cotangent = generator.standard_normal(expected_shape)

        def loss(*inputs: mx.array, spec: Any = spec, cotangent: np.ndarray = cotangent) -> mx.array:
            return (case.op()(*inputs, spec) * mx.array(cotangent.astype(np.float32))).sum()

        gradient_of = mx.grad(loss, argnums=tuple(range(len(arrays))))
        if compiled:
            gradient_of = mx.compile(gradient_of)
        gradients = gradient_of(*[mx.array(array) for array in arrays])
        for index, gradient in enumerate(gradients):
            direction = generator.standard_normal(arrays[index].shape)
            direction /= np.linalg.norm(direction)
            expected = _directional_derivative(case, arrays, index, direction, cotangent, spec)
            actual = float((np.array(gradient, dtype=np.float64) * direction).sum())
            assert abs(actual - expected) <= tolerance(mx.float32, gradient=True) * max(1.0, abs(expected))


def _directional_derivative(
    case: Case, arrays: list[np.ndarray], index: int, direction: np.ndarray, cotangent: np.ndarray, spec: Any
) -> float:
    """Central difference of the float64 reference; its error is about step² and rounding / step, both near 1e-10.

    What MLX says of a mechanism's own function of the scores is right to 4e-8 (its float64 exponential is no better):
    there a longer step and a difference of fourth order, whose errors are near 1e-9 and 4e-6.
    """
    step, weights = 1e-5, {1: 1 / 2, -1: -1 / 2}
    if not case.mechanism.separate_heads:
        step, weights = 1e-2, {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}
    total = 0.0
    for steps, weight in weights.items():
        moved = [array.astype(np.float64) for array in arrays]
        moved[index] = moved[index] + steps * step * direction
        total += weight * float((case.mechanism.reference(*moved, spec) * cotangent).sum())
    return total / step


@pytest.mark.parametrize(("case", "causal"), DIRECTED, ids=directed_id)
def test_one_compiled_op_serves_changing_padding(case: Case, causal: bool) -> None:
    """Lengths are data: a compiled op must not bake in those of its first call."""
    if not case.capabilities.padding:
        return
    arrays = _inputs(case, 6, 3, 13)

    def apply(lengths_B: mx.array, *inputs: mx.array) -> mx.array:
        return case.op()(*inputs, case.spec(MaskSpec(causal=causal, lengths_B=lengths_B)))

    compiled = mx.compile(apply)
    for lengths in ([13, 2, 6], [1, 13, 9]):
        lengths_B = mx.array(lengths)
        expected = case.mechanism.reference(*arrays, case.spec(MaskSpec(causal=causal, lengths_B=lengths_B)))
        actual = np.array(compiled(lengths_B, *[mx.array(array) for array in arrays]))
        for row, length in enumerate(lengths):
            assert np.abs(actual[row, :, :length] - expected[row, :, :length]).max() <= tolerance(mx.float32)


def test_the_registry_is_not_empty() -> None:
    assert len(CASES) >= 4
