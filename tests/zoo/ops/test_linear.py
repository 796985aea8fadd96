"""Linear attention: features, both directions, and what the chunked form saves."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops import linear
from zoo.ops.linear import FEATURE_MAPS, FeatureMap, LinearSpec
from zoo.ops.masks import MaskSpec
from zoo.runtime.native import why_no_native

native_only = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))
SCANS = {"chunked": linear.chunked, "cumsum": linear.cumsum, "recurrent": linear.recurrent, "native": linear.native}
FORMS = [pytest.param(name, marks=native_only) if name == "native" else name for name in SCANS]
B, N, K, H = 3, 6, 2, 5


def _inputs(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    q, k, v = (generator.standard_normal((B, heads, length, H)).astype(np.float32) for heads in (N, K, K))
    return q, k, v


def _on_mlx(arrays: tuple[np.ndarray, ...], dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array, mx.array]:
    q, k, v = (mx.array(array).astype(dtype) for array in arrays)
    return q, k, v


def _difference(scan: str, arrays: tuple[np.ndarray, np.ndarray, np.ndarray], spec: LinearSpec) -> float:
    actual = np.array(linear.op_of(SCANS[scan])(*_on_mlx(arrays), spec))
    difference = np.abs(actual - linear.reference(*arrays, spec))
    if spec.mask.lengths_B is not None:
        valid = np.arange(actual.shape[2]) < np.array(spec.mask.lengths_B)[:, None]
        difference = difference * valid[:, None, :, None]
    return float(difference.max())


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_features_stay_positive_far_below_zero(dtype: mx.Dtype) -> None:
    x = mx.array([-8.0, -6.5, -1.0, 0.0, 2.0], dtype=dtype)
    exact = np.array(x.astype(mx.float32), dtype=np.float64)
    phi = np.array(linear.features(x, "elu_plus_one"))
    assert (phi > 0).all()
    assert np.abs(phi / np.where(exact < 0, np.exp(exact), exact + 1) - 1).max() <= tolerance(mx.float32)


def test_the_published_form_of_the_features_cancels_to_zero() -> None:
    """What the test above guards against: in bfloat16, exp(-8) - 1 rounds to -1."""
    x = mx.array(-8.0, dtype=mx.bfloat16)
    assert ((mx.exp(x) - 1) + 1).item() == 0


def test_keys_far_below_zero_still_average_the_values_in_bfloat16() -> None:
    arrays = _inputs(7)
    arrays[0][:], arrays[1][:] = 0.5, -8.0
    rounded = _on_mlx(arrays, mx.bfloat16)
    y = linear.op_of(linear.chunked)(*rounded, LinearSpec(mask=MaskSpec(causal=True))).astype(mx.float32)
    exact = np.array(rounded[2].astype(mx.float32))
    mean = np.cumsum(exact, axis=2) / np.arange(1, 8)[:, None]
    # eps is 0.04 % of the smallest denominator here, 0.0025.
    assert np.abs(np.array(y) - np.repeat(mean, N // K, axis=1)).max() <= tolerance(mx.bfloat16)


@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
def test_features_have_their_derivative_at_and_around_zero(feature_map: FeatureMap) -> None:
    x = [-200.0, -8.0, -1.0, 0.0, 1.0, 200.0]
    expected = {
        "elu_plus_one": [0.0, np.exp(-8.0), np.exp(-1.0), 1.0, 1.0, 1.0],
        "relu": [0.0, 0.0, 0.0, 0.0, 1.0, 1.0],
        "squared_relu": [0.0, 0.0, 0.0, 0.0, 2.0, 400.0],
    }[feature_map]
    gradient = mx.grad(lambda x: linear.features(x, feature_map).sum())(mx.array(x))
    assert np.abs(np.array(gradient) - expected).max() <= tolerance(mx.float32, gradient=True)


@pytest.mark.parametrize("scan", FORMS)
@pytest.mark.parametrize("chunk_size", [1, 3, 4, 11, 64])
def test_the_chunk_size_never_changes_the_result(scan: str, chunk_size: int) -> None:
    spec = LinearSpec(mask=MaskSpec(causal=True), chunk_size=chunk_size)
    assert _difference(scan, _inputs(11), spec) <= tolerance(mx.float32)


@pytest.mark.parametrize("scan", ["chunked", pytest.param("native", marks=native_only)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("start", [1, 3, 4, 5, 8, 10])
def test_documents_and_padding_together_equal_the_reference(start: int, causal: bool, scan: str) -> None:
    segments = np.zeros((B, 11), dtype=np.int32)
    segments[0, start:], segments[1, start:], segments[1, 10:] = 1, 2, 3
    mask = MaskSpec(causal=causal, segments_BL=mx.array(segments), lengths_B=mx.array([11, 10, 6]))
    assert _difference(scan, _inputs(11), LinearSpec(mask=mask, chunk_size=4)) <= tolerance(mx.float32)


def test_more_keys_than_queries_equal_the_reference_when_bidirectional() -> None:
    q, k, v = _inputs(11)
    arrays = (q[:, :, :7], k, v)
    mask = MaskSpec(causal=False, lengths_B=mx.array([11, 9, 4]))
    actual = linear.bidirectional(*_on_mlx(arrays), LinearSpec(mask=mask))
    expected = linear.reference(*arrays, LinearSpec(mask=mask))
    assert actual.shape == expected.shape == (B, N, 7, H)
    assert np.abs(np.array(actual) - expected).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("scan", FORMS)
def test_rows_without_any_feature_are_zero_and_their_gradients_finite(scan: str) -> None:
    q, k, v = _on_mlx(_inputs(5))
    arrays = (-mx.abs(q), k, v)
    spec = LinearSpec(mask=MaskSpec(causal=True), feature_map="relu")

    def loss(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return SCANS[scan](q, k, v, spec)[0].sum()

    assert loss(*arrays).item() == 0
    assert all(mx.isfinite(gradient).all().item() for gradient in mx.grad(loss, argnums=(0, 1, 2))(*arrays))


@native_only
@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
@pytest.mark.parametrize("handed", ["nothing", "a state", "documents"])
@pytest.mark.parametrize(("length", "width", "chunk_size"), [(2, 5, 32), (37, 5, 8), (70, 33, 64), (26, 64, 300)])
def test_compiled_sums_and_their_gradients_equal_those_of_mlx(
    feature_map: FeatureMap, handed: str, length: int, width: int, chunk_size: int
) -> None:
    """Of arrays whose heads lie behind each other and of such as lie beside each other, as after a projection."""
    generator = np.random.default_rng(length)
    beside = generator.standard_normal((B, length, N + 2 * K, width)).astype(np.float32)
    q, k, v = (mx.array(beside[:, :, part]).swapaxes(1, 2) for part in (slice(0, N), slice(N, N + K), slice(-K, None)))
    of_y, of_state = (mx.array(generator.standard_normal(shape)) for shape in (q.shape, (B, K, width, width + 1)))
    state = mx.array(generator.uniform(0, 1, of_state.shape).astype(np.float32)) if handed == "a state" else None
    documents = mx.array(np.sort(generator.integers(0, 4, (B, length)), axis=1).astype(np.int32))
    mask = MaskSpec(causal=True, segments_BL=documents if handed == "documents" else None)
    spec = LinearSpec(mask=mask, feature_map=feature_map, chunk_size=chunk_size, eps=1e-2)

    def found(scan: str) -> list[np.ndarray]:
        def loss(q: mx.array, k: mx.array, v: mx.array, *state: mx.array) -> mx.array:
            y, last = SCANS[scan](q, k, v, spec, *state)
            return (y * of_y).sum() + (last * of_state).sum()

        arrays = [q, k, v, *([] if state is None else [state])]
        y, last = SCANS[scan](q, k, v, spec, state)
        gradients = mx.grad(loss, argnums=tuple(range(len(arrays))))(*arrays)
        return [np.array(each) for each in (y, last, *gradients)]

    for ours, expected in zip(found("native"), found("chunked"), strict=True):
        assert ours.shape == expected.shape
        # A query's gradient is a small difference of large products where there are few keys.
        assert np.abs(ours - expected).max() <= 2e-5 * max(np.abs(expected).max(), 0.1)


def _peak_bytes(scan: str, length: int) -> int:
    op = linear.op_of(SCANS[scan])
    q, k, v = (mx.random.normal((1, 8, length, 64)) for _ in range(3))
    mx.eval(q, k, v)
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    # The thread that computes frees what the main one still builds on: of a few calls, one meets the true peak.
    for _ in range(5):
        mx.eval(op(q, k, v, LinearSpec(mask=MaskSpec(causal=True))))
    return mx.get_peak_memory() - held


def test_chunks_need_at_most_a_quarter_of_the_memory_of_the_cumulative_sum() -> None:
    assert _peak_bytes("chunked", 1024) <= 0.25 * _peak_bytes("cumsum", 1024)


def test_memory_of_the_chunked_form_is_linear_in_the_length() -> None:
    assert _peak_bytes("chunked", 2048) <= 2.3 * _peak_bytes("chunked", 1024)
