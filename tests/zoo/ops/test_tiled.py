"""Tiled softmax attention: the values and gradients of the dense form, in memory that grows with the length."""

import io

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import Op, gradient_error, gradients, peak_bytes, qkv, repeated, value_error, variant
from zoo.layers.positions import alibi_slopes
from zoo.ops import softmax, tiled
from zoo.ops.masks import MaskSpec
from zoo.ops.patterns import BoundPattern, block_map
from zoo.ops.softmax import ScoreSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)


def _spec(*, causal: bool, H: int = 10, **rest: object) -> ScoreSpec:
    mask = {name: rest.pop(name) for name in ("lengths_B", "segments_BL", "offset") if name in rest}
    return ScoreSpec(scale=H**-0.5, mask=MaskSpec(causal=causal, **mask), **rest)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles in short texts."""
    monkeypatch.setattr(tiled, "SMALLEST_TILE", 8)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 31])
def test_values_and_gradients_equal_the_reference(
    small_tiles: None, causal: bool, batch_size: int, length: int
) -> None:
    arrays, spec = qkv(length, B=batch_size, K=3, L=length), _spec(causal=causal)
    assert value_error(tiled.tiled, arrays, spec) <= VALUE
    assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


@pytest.mark.parametrize(("query_length", "key_length"), [(0, 0), (3, 0), (0, 5)])
def test_without_tokens_there_are_zeros_or_nothing(query_length: int, key_length: int) -> None:
    arrays, spec = qkv(0, B=2, N=2, K=1, L=query_length, S=key_length), _spec(causal=False)
    y_BNLH = tiled.tiled(*[mx.array(array) for array in arrays], spec)
    assert (y_BNLH.shape, mx.abs(y_BNLH).sum().item()) == (arrays[0].shape, 0)
    assert all((each == 0).all() for each in gradients(tiled.tiled, arrays, spec, np.ones(arrays[0].shape)))


@pytest.mark.parametrize(("query_length", "key_length"), [(777, 199), (199, 777)])
def test_odd_rectangles_equal_the_reference(query_length: int, key_length: int) -> None:
    arrays, spec = qkv(0, B=1, N=2, K=1, L=query_length, S=key_length), _spec(causal=False)
    assert value_error(tiled.tiled, arrays, spec) <= VALUE
    assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


def test_odd_squares_with_shipped_tiles_equal_the_reference() -> None:
    arrays, spec = qkv(0, B=1, N=2, K=1, L=389), _spec(causal=True)
    assert value_error(tiled.tiled, arrays, spec) <= VALUE
    assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


def test_key_tiles_grow_with_the_length(small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "MOST_KEY_TILES", 2)
    arrays, spec = qkv(0, B=1, L=77), _spec(causal=True)
    assert value_error(tiled.tiled, arrays, spec) <= VALUE
    assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("causal", [True, False])
def test_padding_documents_and_alibi_equal_the_reference(small_tiles: None, causal: bool) -> None:
    arrays = qkv(1, B=3, K=2, L=29)
    segments = mx.array([[0] * 11 + [1] * 18, [0] * 29, [0, 1] + [2] * 20 + [3] * 7])
    for rest in (
        {"lengths_B": mx.array([29, 1, 17])},
        {"segments_BL": segments},
        {"slopes_N": alibi_slopes(6)},
        {"lengths_B": mx.array([4, 29, 16]), "segments_BL": segments, "slopes_N": alibi_slopes(6)},
    ):
        spec = _spec(causal=causal, **rest)
        assert value_error(tiled.tiled, arrays, spec) <= VALUE
        assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


def test_queries_after_a_history_equal_the_reference(small_tiles: None) -> None:
    arrays = qkv(2, B=2, L=13, S=30)
    shuffled = mx.array(np.stack([np.random.default_rng(0).permutation(30), np.arange(30) - 3]).astype(np.int32))
    for rest in ({"offset": 17}, {"offset": mx.array([3, 17])}, {"offset": 17, "key_positions": shuffled}):
        spec = _spec(causal=True, **rest)
        assert value_error(tiled.tiled, arrays, spec) <= VALUE
        assert gradient_error(tiled.tiled, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("num_kv_heads", [2, 4, 8])
def test_grouped_heads_equal_repeated_ones(small_tiles: None, num_kv_heads: int) -> None:
    arrays, spec = qkv(3, N=8, K=num_kv_heads, L=19), _spec(causal=True)
    grouped, multi = (tiled.tiled(*map(mx.array, inputs), spec) for inputs in (arrays, repeated(arrays)))
    assert mx.abs(grouped - multi).max().item() <= VALUE


def test_rows_without_keys_are_zero_and_send_no_gradient(small_tiles: None) -> None:
    def late_keys(query_index: mx.array, key_index: mx.array, first: int) -> mx.array:
        return (key_index >= first) & (key_index <= query_index)

    arrays = qkv(4, B=2, L=21)
    spec = _spec(causal=True, pattern=BoundPattern(late_keys, 12))
    assert value_error(tiled.tiled, arrays, spec) <= VALUE
    y = np.array(tiled.tiled(*map(mx.array, arrays), spec))
    assert (y[:, :, :12] == 0).all()
    lone = np.zeros(arrays[0].shape)
    lone[:, :, :12] = 1e3
    for gradient in gradients(tiled.tiled, arrays, spec, lone):
        assert (gradient == 0).all()
    empty_row = _spec(causal=False, lengths_B=mx.array([0, 21]))
    assert np.isfinite(np.array(tiled.tiled(*map(mx.array, arrays), empty_row))).all()
    for gradient in gradients(tiled.tiled, arrays, empty_row, np.ones(arrays[0].shape)):
        assert (gradient[0] == 0).all()
        assert np.isfinite(gradient).all()


def test_large_scores_do_not_overflow(small_tiles: None) -> None:
    q, k, v = qkv(5, L=23)
    # Scores reach 3000, where float32 has steps of 2e-4; e^3000 is far beyond its range.
    assert value_error(tiled.tiled, [30 * q, 30 * k, v], _spec(causal=True)) <= 10 * VALUE


def test_bfloat16_is_accumulated_in_float32(small_tiles: None) -> None:
    arrays, spec = qkv(6, L=37), _spec(causal=True)
    rounded = [mx.array(array).astype(mx.bfloat16) for array in arrays]
    y = tiled.tiled(*rounded, spec)
    assert y.dtype == mx.bfloat16
    exact = softmax.reference(*[np.array(array.astype(mx.float32)) for array in rounded], spec)
    # Only the result is rounded: half of bfloat16's spacing, 2^-9 of the value.
    assert (np.abs(np.array(y.astype(mx.float32)) - exact) <= 2**-8 * np.abs(exact) + VALUE).all()


@pytest.mark.parametrize("name", ["sliding_window", "block_sparse", "sinks", "dilated"])
def test_tiles_in_which_nothing_is_allowed_cost_nothing(small_tiles: None, name: str) -> None:
    sizes = {"window_size": 5} if name != "block_sparse" else {"block_size": 5, "num_global_tokens": 2}
    op, spec = variant(name, "tiled", MaskSpec(causal=True), **sizes)
    arrays = qkv(7, B=1, N=2, L=61)
    assert value_error(op, arrays, spec) <= VALUE
    assert gradient_error(op, arrays, spec) <= GRADIENT
    tiles = block_map(spec.pattern, causal=True, query_length=61, key_length=61, query_tile=8, key_tile=8)
    full = _spec(causal=True)
    assert 0 < np.count_nonzero(tiles) < 36
    assert _matrix_products(op, arrays, spec) < _matrix_products(tiled.tiled, arrays, full)


def _matrix_products(op: Op, arrays: list[np.ndarray], spec: ScoreSpec) -> int:
    """How many the graph of the forward pass has."""
    text = io.StringIO()
    mx.export_to_dot(text, op(*map(mx.array, arrays), spec))
    return text.getvalue().count("Matmul")


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_memory_grows_with_the_length_and_not_its_square(compiled: bool) -> None:
    spec = _spec(causal=True, H=16)
    short, long = (peak_bytes(tiled.tiled, spec, N=2, L=length, H=16, compiled=compiled) for length in (768, 1536))
    assert long < 2.3 * short
    dense_scores = 2 * 1536 * 1536 * 4
    assert long < dense_scores / 2


def test_tiles_that_do_not_wait_for_each_other_would_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(causal=True, H=16)
    ordered = peak_bytes(tiled.tiled, spec, N=2, L=1024, H=16)
    monkeypatch.setattr(tiled, "_after", lambda _, *arrays: list(arrays))
    assert peak_bytes(tiled.tiled, spec, N=2, L=1024, H=16) > 1.5 * ordered


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_at_4096_tokens_the_peak_is_at_most_15_percent_of_the_dense_form(compiled: bool) -> None:
    spec = _spec(causal=True, H=64)
    sizes = {"N": 1, "L": 4096, "H": 64, "compiled": compiled}
    # They are near 5 and 7 percent. The dense form's is that of its scores, the same in every run.
    tiled_peak, dense_peak = (
        peak_bytes(op, spec, num_runs=num_runs, **sizes) for op, num_runs in ((tiled.tiled, 2), (softmax.manual, 1))
    )
    assert tiled_peak <= 0.15 * dense_peak


def test_one_compiled_op_serves_changing_masks(small_tiles: None) -> None:
    arrays = [mx.array(array) for array in qkv(8, B=2, L=19)]

    def run(lengths_B: mx.array, segments_BL: mx.array, q: mx.array, k: mx.array, v: mx.array) -> list[mx.array]:
        spec = _spec(causal=False, lengths_B=lengths_B, segments_BL=segments_BL)
        y, gradient = mx.value_and_grad(lambda q: mx.square(tiled.tiled(q, k, v, spec)[:, :, :2]).sum())(q)
        return [y, gradient]

    compiled = mx.compile(run)
    for lengths, border in (([19, 8], 12), ([2, 15], 3)):
        data = mx.array(lengths), mx.broadcast_to(mx.arange(19) >= border, (2, 19)).astype(mx.int32)
        for found, expected in zip(compiled(*data, *arrays), run(*data, *arrays), strict=True):
            assert mx.abs(found - expected).max().item() <= GRADIENT
