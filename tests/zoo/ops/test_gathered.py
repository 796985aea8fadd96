"""The published gathers, corrected: equal to the band at every row, the edges and sum(q) < 0 included."""

import io

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import Op, gradient_error, qkv, repeated, value_error, variant
from zoo.layers.positions import alibi_slopes
from zoo.ops.masks import MaskSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)

pytestmark = pytest.mark.parametrize("implementation", ["gather_slices", "gather_index"])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window_size", [1, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_length_equals_the_reference(
    implementation: str, causal: bool, window_size: int, batch_size: int
) -> None:
    op, spec = variant("sliding_window", implementation, MaskSpec(causal=causal), window_size=window_size)
    for length in (1, 3, 4, 7, 8, 23):
        arrays = qkv(length, B=batch_size, K=2, L=length)
        assert value_error(op, arrays, spec) <= VALUE
        assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("causal", [True, False])
def test_rows_whose_queries_sum_below_zero_are_right(implementation: str, causal: bool) -> None:
    q, k, v = qkv(0, L=21)
    op, spec = variant("sliding_window", implementation, MaskSpec(causal=causal), window_size=6)
    assert value_error(op, [-5 * abs(q), k, v], spec) <= VALUE


@pytest.mark.parametrize("causal", [True, False])
def test_padding_documents_and_alibi_equal_the_reference(implementation: str, causal: bool) -> None:
    arrays = qkv(1, B=3, K=2, L=23)
    segments = mx.array([[0] * 5 + [1] * 18, [0] * 23, [0, 1, 2] + [3] * 20])
    mask = MaskSpec(causal=causal, lengths_B=mx.array([23, 1, 9]), segments_BL=segments)
    op, spec = variant("sliding_window", implementation, mask, window_size=6, slopes_N=alibi_slopes(6))
    assert value_error(op, arrays, spec) <= VALUE
    assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("num_kv_heads", [2, 4, 8])
def test_grouped_heads_equal_repeated_ones(implementation: str, num_kv_heads: int) -> None:
    op, spec = variant("sliding_window", implementation, MaskSpec(causal=True), window_size=6)
    arrays = qkv(2, N=8, K=num_kv_heads, L=19)
    grouped, multi = (op(*map(mx.array, inputs), spec) for inputs in (arrays, repeated(arrays)))
    assert mx.abs(grouped - multi).max().item() <= VALUE


def test_the_published_padding_of_keys_would_be_seen(implementation: str) -> None:
    """-1e9 in the keys wins the softmax of a query that sums below zero, and its row becomes zero."""
    q, k, v = qkv(3, B=1, N=1, L=9)
    _, spec = variant("sliding_window", implementation, MaskSpec(causal=True), window_size=4)

    def published(q: mx.array, k: mx.array, v: mx.array, spec: object) -> mx.array:
        padded_k = mx.pad(k, [(0, 0), (0, 0), (3, 0), (0, 0)], constant_values=-1e9)
        padded_v = mx.pad(v, [(0, 0), (0, 0), (3, 0), (0, 0)])
        windows = [(padded_k[:, :, i : i + 4], padded_v[:, :, i : i + 4]) for i in range(9)]
        rows = [
            mx.softmax(q[:, :, i : i + 1] * 10**-0.5 @ keys.swapaxes(-1, -2), axis=-1) @ values
            for i, (keys, values) in enumerate(windows)
        ]
        return mx.concatenate(rows, axis=2)

    faulty = [-np.abs(q), k, v]
    assert value_error(published, faulty, spec) > 1000 * VALUE
    assert (np.array(published(*map(mx.array, faulty), spec))[0, 0, 0] == 0).all()


def test_slices_grow_with_the_length_and_the_index_does_not(implementation: str) -> None:
    op, spec = variant("sliding_window", implementation, MaskSpec(causal=True), window_size=4)
    nodes = {length: _graph_nodes(op, qkv(0, B=1, N=1, L=length), spec) for length in (16, 32)}
    if implementation == "gather_slices":
        assert nodes[32] - nodes[16] >= 2 * 16
    else:
        assert nodes[32] == nodes[16]


def _graph_nodes(op: Op, arrays: list[np.ndarray], spec: object) -> int:
    text = io.StringIO()
    mx.export_to_dot(text, op(*map(mx.array, arrays), spec))
    return text.getvalue().count("label =")
