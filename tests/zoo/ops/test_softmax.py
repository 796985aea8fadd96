"""Dense softmax attention: the reference itself, and the `manual` and `fused` forms held to it."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import gradient_error, gradients, qkv, repeated, value_error
from zoo.layers.positions import alibi_slopes
from zoo.ops import softmax
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern
from zoo.ops.softmax import ScoreSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)
OPS = pytest.mark.parametrize("op", [softmax.manual, softmax.fused], ids=["manual", "fused"])


def _spec(*, causal: bool, H: int = 10, **rest: object) -> ScoreSpec:
    mask = {name: rest.pop(name) for name in ("lengths_B", "segments_BL", "offset") if name in rest}
    return ScoreSpec(scale=H**-0.5, mask=MaskSpec(causal=causal, **mask), **rest)


def test_the_reference_is_the_sum_of_the_formula() -> None:
    q, k, v = (array.astype(np.float64) for array in qkv(0, B=2, N=4, K=2, L=7, H=3))
    y = softmax.reference(q, k, v, ScoreSpec(scale=0.5, mask=MaskSpec(causal=True)))
    for batch, head, row in np.ndindex(2, 4, 7):
        scores = [0.5 * sum(q[batch, head, row] * k[batch, head // 2, key]) for key in range(row + 1)]
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(weight * v[batch, head // 2, key] for key, weight in enumerate(weights))
        # Two float64 sums of the same few terms.
        assert np.abs(y[batch, head, row] - expected).max() < 1e-14


@OPS
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_values_and_gradients_equal_the_reference(op: Callable[..., mx.array], causal: bool, batch_size: int) -> None:
    for length in (1, 2, 17, 33):
        arrays, spec = qkv(length, B=batch_size, K=3, L=length), _spec(causal=causal)
        assert value_error(op, arrays, spec) <= VALUE
        assert gradient_error(op, arrays, spec) <= GRADIENT


@OPS
@pytest.mark.parametrize("causal", [True, False])
def test_padding_documents_and_alibi_equal_the_reference(op: Callable[..., mx.array], causal: bool) -> None:
    arrays = qkv(1, B=3, K=2, L=19)
    segments = mx.array([[0] * 11 + [1] * 8, [0] * 19, [0, 1] + [2] * 10 + [3] * 7])
    for rest in (
        {"lengths_B": mx.array([19, 1, 7])},
        {"segments_BL": segments},
        {"slopes_N": alibi_slopes(6)},
        {"lengths_B": mx.array([4, 19, 6]), "segments_BL": segments, "slopes_N": alibi_slopes(6)},
    ):
        spec = _spec(causal=causal, **rest)
        assert value_error(op, arrays, spec) <= VALUE
        assert gradient_error(op, arrays, spec) <= GRADIENT


@OPS
def test_queries_after_a_history_equal_the_reference(op: Callable[..., mx.array]) -> None:
    arrays = qkv(2, B=2, L=5, S=14)
    order = mx.array(np.stack([np.random.default_rng(0).permutation(14), np.arange(14) - 3]).astype(np.int32))
    for rest in ({"offset": 9}, {"offset": mx.array([3, 9])}, {"offset": 9, "key_positions": order}):
        assert value_error(op, arrays, _spec(causal=True, **rest)) <= VALUE


@OPS
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4, 8])
def test_grouped_heads_equal_repeated_ones(op: Callable[..., mx.array], num_kv_heads: int) -> None:
    arrays, spec = qkv(3, N=8, K=num_kv_heads, L=19), _spec(causal=True)
    grouped, multi = (op(*map(mx.array, inputs), spec) for inputs in (arrays, repeated(arrays)))
    assert mx.abs(grouped - multi).max().item() <= VALUE


@OPS
@pytest.mark.parametrize("num_kv_heads", [2, 4, 8])
def test_untransposed_values_would_be_seen(op: Callable[..., mx.array], num_kv_heads: int) -> None:
    """AttnBench's grouped attention: V reshaped from [B, L, K, H] without the transpose."""

    def faulty(q: mx.array, k: mx.array, v: mx.array, spec: ScoreSpec) -> mx.array:
        return op(q, k, v.swapaxes(1, 2).reshape(v.shape), spec)

    assert value_error(faulty, qkv(4, N=8, K=num_kv_heads, L=19), _spec(causal=True)) > 1000 * VALUE


@OPS
def test_rows_without_keys_stay_finite(op: Callable[..., mx.array]) -> None:
    def late_keys(query_index: mx.array, key_index: mx.array, first: int) -> mx.array:
        return (key_index >= first) & (query_index >= first)

    arrays, spec = qkv(5, L=9), _spec(causal=True, pattern=BoundPattern(late_keys, 4))
    assert np.isfinite(np.array(op(*map(mx.array, arrays), spec))).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients(op, arrays, spec, np.ones(arrays[0].shape)))


def test_the_fused_form_gets_the_cheapest_mask_that_says_the_same() -> None:
    cases = [
        (_spec(causal=True), 7, 7, "causal"),
        (_spec(causal=True, offset=6), 1, 7, None),
        (_spec(causal=True, offset=4), 3, 7, "causal"),
        (_spec(causal=False), 7, 7, None),
    ]
    for spec, query_length, key_length, expected in cases:
        assert softmax.fused_mask(spec, query_length, key_length, mx.float32) == expected
    padded = softmax.fused_mask(_spec(causal=True, lengths_B=mx.array([3, 7])), 7, 7, mx.float32)
    assert padded.dtype == mx.bool_
    assert padded.shape == (2, 1, 7, 7)
