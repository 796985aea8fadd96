"""Sliding windows in chunks, with and without sinks: the reference at every row and length, in linear memory."""

from typing import Any

import mlx.core as mx
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import Op, gradient_error, peak_bytes, qkv, repeated, value_error, variant
from zoo.layers.positions import alibi_slopes
from zoo.ops import chunks, softmax
from zoo.ops.masks import MaskSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)
DIRECTIONS = [("sliding_window", True), ("sliding_window", False), ("sinks", True)]


@pytest.fixture
def chunked_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense path must not do the work of the tests that are about chunks."""

    def refuse(*_: object) -> mx.array:
        raise AssertionError("the dense path was taken")

    monkeypatch.setattr(softmax, "fused", refuse)


def _chunked(name: str, mask: MaskSpec, **parameters: Any) -> tuple[Op, Any]:
    return variant(name, "chunked", mask, **parameters)


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
@pytest.mark.parametrize("window_size", [1, 3, 8, 13])
def test_every_length_equals_the_reference(name: str, causal: bool, window_size: int) -> None:
    op, spec = _chunked(name, MaskSpec(causal=causal), window_size=window_size)
    w = window_size
    for length in sorted({1, 2, max(1, w - 1), w, w + 1, 2 * w - 1, 2 * w, 2 * w + 1, 3 * w + 2, 7 * w, 67}):
        for batch_size in (1, 3):
            assert value_error(op, qkv(length, B=batch_size, L=length), spec) <= VALUE, length


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
@pytest.mark.parametrize("window_size", [3, 13])
def test_chunks_give_the_values_and_gradients_of_the_reference(
    chunked_only: None, name: str, causal: bool, window_size: int
) -> None:
    op, spec = _chunked(name, MaskSpec(causal=causal), window_size=window_size)
    for length in (65, 78, 101):
        arrays = qkv(length, K=3, L=length)
        assert value_error(op, arrays, spec) <= VALUE
        assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("num_sinks", [0, 1, 4, 9, 21])
@pytest.mark.parametrize("window_size", [3, 11])
def test_sinks_are_counted_once(chunked_only: None, num_sinks: int, window_size: int) -> None:
    op, spec = _chunked("sinks", MaskSpec(causal=True), window_size=window_size, num_sinks=num_sinks)
    arrays = qkv(0, K=2, L=77)
    assert value_error(op, arrays, spec) <= VALUE
    assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
@pytest.mark.parametrize("window_size", [3, 11])
def test_padding_documents_and_alibi_equal_the_reference(
    chunked_only: None, name: str, causal: bool, window_size: int
) -> None:
    arrays = qkv(1, B=3, K=2, L=83)
    segments = mx.array([[0] * 5 + [1] * 78, [0] * 83, [0, 1, 2] + [3] * 40 + [4] * 40])
    for rest in (
        {"lengths_B": mx.array([83, 1, 50])},
        {"segments_BL": segments},
        {"lengths_B": mx.array([12, 83, 7]), "segments_BL": segments},
    ):
        mask = MaskSpec(causal=causal, **rest)
        for slopes_N in (None, alibi_slopes(6)):
            op, spec = _chunked(name, mask, window_size=window_size, slopes_N=slopes_N)
            assert value_error(op, arrays, spec) <= VALUE
            assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
@pytest.mark.parametrize("num_kv_heads", [2, 4, 8])
def test_grouped_heads_equal_repeated_ones(chunked_only: None, name: str, causal: bool, num_kv_heads: int) -> None:
    op, spec = _chunked(name, MaskSpec(causal=causal), window_size=9)
    arrays = qkv(2, N=8, K=num_kv_heads, L=71)
    grouped, multi = (op(*map(mx.array, inputs), spec) for inputs in (arrays, repeated(arrays)))
    assert mx.abs(grouped - multi).max().item() <= VALUE


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
def test_rows_whose_queries_sum_below_zero_are_right(chunked_only: None, name: str, causal: bool) -> None:
    """Padded keys must not win the softmax, at the start of the text nor at its ragged end."""
    q, k, v = qkv(3, L=70)
    op, spec = _chunked(name, MaskSpec(causal=causal), window_size=9)
    assert value_error(op, [-5 * abs(q), k, v], spec) <= VALUE


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
def test_queries_after_a_history_equal_the_reference(name: str, causal: bool) -> None:
    op, spec = _chunked(name, MaskSpec(causal=causal, offset=70), window_size=9)
    assert value_error(op, qkv(4, L=11, S=81), spec) <= VALUE


@pytest.mark.parametrize("change", [-1, 1])
def test_a_window_off_by_one_would_be_seen(change: int) -> None:
    arrays = qkv(5, L=71)
    _, spec = _chunked("sliding_window", MaskSpec(causal=True), window_size=9)
    faulty, faulty_spec = _chunked("sliding_window", MaskSpec(causal=True), window_size=9 + change)
    assert value_error(lambda q, k, v, _: faulty(q, k, v, faulty_spec), arrays, spec) > 1000 * VALUE


def test_a_leak_across_the_border_of_a_chunk_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = qkv(6, L=71)
    op, spec = _chunked("sliding_window", MaskSpec(causal=True), window_size=9)
    assert value_error(op, arrays, spec) <= VALUE
    right = chunks.Chunks.shifted

    def one_late(self: chunks.Chunks, number: int) -> mx.array:
        # Keys and values of the chunk before, moved by one token: its last place shows the next chunk's first.
        return mx.roll(right(self, number), -1, axis=-2) if number < 0 else right(self, number)

    monkeypatch.setattr(chunks.Chunks, "shifted", one_late)
    assert value_error(op, arrays, spec) > 1000 * VALUE


def test_untransposed_values_would_be_seen() -> None:
    arrays = qkv(7, L=71)
    op, spec = _chunked("sliding_window", MaskSpec(causal=True), window_size=9)

    def faulty(q: mx.array, k: mx.array, v: mx.array, spec: object) -> mx.array:
        return op(q, k, v.swapaxes(1, 2).reshape(v.shape), spec)

    assert value_error(faulty, arrays, spec) > 1000 * VALUE


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
def test_memory_grows_with_the_length_and_not_its_square(name: str, causal: bool, compiled: bool) -> None:
    op, spec = _chunked(name, MaskSpec(causal=causal), H=16, window_size=64)
    short, long = (peak_bytes(op, spec, N=2, L=length, H=16, compiled=compiled) for length in (2048, 4096))
    assert long < 2.3 * short
    dense_scores = 2 * 4096 * 4096 * 4
    assert long < dense_scores / 2
