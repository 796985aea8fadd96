"""The gated delta rule: four forms, one recurrence; documents, cuts, gates at their ends, gradients, memory."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops import gated_delta
from zoo.ops.gated_delta import GatedDeltaSpec
from zoo.ops.masks import MaskSpec

CHUNK = 4
FORMS = {
    "native": gated_delta.native(CHUNK),
    "mlx_own": gated_delta.mlx_own(CHUNK),
    "chunked": gated_delta.chunked(CHUNK),
    "recurrent": gated_delta.recurrent,
}
B, N, H = 2, 3, 5


def _inputs(length: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    q, k, v = (generator.standard_normal((B, N, length, H)) for _ in range(3))
    q, k = (array / np.linalg.norm(array, axis=-1, keepdims=True) for array in (q, k))
    gates = (generator.uniform(0.3, 1, (B, length, N)), generator.uniform(0, 1, (B, length, N)))
    return [array.astype(np.float32) for array in (q, k, v, *gates)]


def _spec(segments: np.ndarray | None = None) -> GatedDeltaSpec:
    documents = None if segments is None else mx.array(segments)
    return GatedDeltaSpec(scale=0.7, mask=MaskSpec(causal=True, segments_BL=documents))


def _update(
    form: str, arrays: list[Any], spec: GatedDeltaSpec, state: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    q, k, v, gamma, beta = (mx.array(array) for array in arrays)
    return gated_delta.update(FORMS[form], q, k, v, (gamma, beta), spec, state_BNHH=state)


def _cut(arrays: list[np.ndarray], part: slice) -> list[np.ndarray]:
    return [*(array[:, :, part] for array in arrays[:3]), *(array[:, part] for array in arrays[3:])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 4, 5, 8, 23])
def test_values_equal_the_reference_at_every_length(form: str, length: int) -> None:
    arrays = _inputs(length)
    y, _ = _update(form, arrays, _spec())
    assert np.abs(np.array(y) - gated_delta.reference(*arrays, _spec())).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", range(1, 11))
def test_any_cut_hands_the_state_on_to_any_form(form: str, cut: int) -> None:
    arrays = _inputs(11)
    whole, last = _update("recurrent", arrays, _spec())
    first, state = _update(form, _cut(arrays, slice(cut)), _spec())
    for follower in FORMS:
        second, end = _update(follower, _cut(arrays, slice(cut, None)), _spec(), state)
        assert mx.abs(mx.concatenate([first, second], axis=2) - whole).max().item() <= tolerance(mx.float32)
        assert mx.abs(end - last).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start", range(1, 11))
def test_a_document_starts_from_an_empty_state_wherever_it_starts(form: str, start: int) -> None:
    arrays, segments = _inputs(11), np.zeros((B, 11), dtype=np.int32)
    segments[0, start:], segments[1, start:], segments[1, start + 1 :] = 1, 4, 5
    y, _ = _update(form, arrays, _spec(segments))
    assert np.abs(np.array(y) - gated_delta.reference(*arrays, _spec(segments))).max() <= tolerance(mx.float32)
    alone, _ = _update(form, _cut(arrays, slice(start, None)), _spec())
    assert mx.abs(y[0, :, start:] - alone[0]).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
def test_a_loud_document_leaves_nothing_behind(form: str) -> None:
    arrays, segments = _inputs(23), np.zeros((B, 23), dtype=np.int32)
    segments[:, 18:] = 1
    arrays[2][:, :, :18] *= 1e6
    y, _ = _update(form, arrays, _spec(segments))
    expected = gated_delta.reference(*arrays, _spec(segments))
    assert np.abs(np.array(y) - expected)[:, :, 18:].max() <= tolerance(mx.float32)


def test_a_border_off_by_one_would_be_seen() -> None:
    arrays, segments = _inputs(11), np.zeros((B, 11), dtype=np.int32)
    late = segments.copy()
    segments[:, 5:], late[:, 6:] = 1, 1
    for form in FORMS:
        y, _ = _update(form, arrays, _spec(late))
        assert np.abs(np.array(y) - gated_delta.reference(*arrays, _spec(segments))).max() > 1000 * tolerance(
            mx.float32
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("gamma", "beta"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1e-30, 0.5), (5e-4, 1.0)])
def test_gates_at_their_ends_equal_the_reference(form: str, gamma: float, beta: float) -> None:
    arrays = _inputs(13)
    arrays[3][:, 3:11], arrays[4][:, 3:11] = gamma, beta
    y, _ = _update(form, arrays, _spec())
    assert np.abs(np.array(y) - gated_delta.reference(*arrays, _spec())).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
def test_one_key_repeated_recalls_the_latest_value(form: str) -> None:
    """The delta rule's point: with beta 1 a key's old value is replaced, not added to."""
    arrays = _inputs(70)
    arrays[1][:] = arrays[1][:, :, :1]
    arrays[0], arrays[3][:], arrays[4][:] = arrays[1], 1.0, 1.0
    y, _ = _update(form, arrays, _spec())
    assert np.abs(np.array(y) - 0.7 * arrays[2]).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("packed", [False, True], ids=["state", "packed"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_the_references_directional_derivatives(form: str, packed: bool, compiled: bool) -> None:
    length, generator = 11, np.random.default_rng(3)
    arrays = _inputs(length)
    segments = np.array([[0] * 3 + [1] * 8, [0] * 7 + [1] + [2] * 3], dtype=np.int32) if packed else None
    of_y, of_state = generator.standard_normal((B, N, length, H)), generator.standard_normal((B, N, H, H))

    def expected_loss(inputs: list[np.ndarray]) -> float:
        value = (gated_delta.reference(*inputs, _spec(segments)) * of_y).sum()
        if packed:
            return float(value)
        # The last state, read out: one more token that keeps all, stores nothing and asks for one axis at a time.
        for axis in range(H):
            asked = [np.concatenate([array, np.zeros_like(array[:, :, :1])], axis=2) for array in inputs[:3]]
            asked[0][:, :, -1, axis] = 1.0
            ends = [np.full((B, 1, N), end) for end in (1.0, 0.0)]
            gates = [np.concatenate([array, end], axis=1) for array, end in zip(inputs[3:], ends, strict=True)]
            column = gated_delta.reference(*asked, *gates, _spec())[:, :, -1] / 0.7
            value += (column * of_state[..., axis]).sum()
        return float(value)

    def loss(*inputs: mx.array) -> mx.array:
        y, state = _update(form, list(inputs), _spec(segments))
        value = (y * mx.array(of_y, dtype=mx.float32)).sum()
        return value if packed else value + (state * mx.array(of_state, dtype=mx.float32)).sum()

    gradient_of = mx.grad(loss, argnums=(0, 1, 2, 3, 4))
    gradients = (mx.compile(gradient_of) if compiled else gradient_of)(*[mx.array(array) for array in arrays])
    step = 1e-5
    for index, gradient in enumerate(gradients):
        direction = generator.standard_normal(arrays[index].shape)
        direction /= np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            moved = [array.astype(np.float64) for array in arrays]
            moved[index] = moved[index] + sign * step * direction
            ends.append(expected_loss(moved))
        expected = (ends[0] - ends[1]) / (2 * step)
        actual = float((np.array(gradient, dtype=np.float64) * direction).sum())
        assert abs(actual - expected) <= tolerance(mx.float32, gradient=True) * max(1.0, abs(expected))


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_the_state_handed_in_equals_the_plain_recurrences(form: str) -> None:
    arrays, generator = _inputs(11), np.random.default_rng(4)
    state = mx.array(generator.standard_normal((B, N, H, H)).astype(np.float32))

    def loss(state: mx.array, decay: mx.array) -> mx.array:
        y, after = _update(form, arrays, _spec(), state * decay)
        return mx.square(y).sum() + mx.square(after).sum()

    # Scaling the state by c and differentiating by c at 1 is a directional derivative along the state.
    along = mx.grad(loss, argnums=1)(state, mx.array(1.0)).item()
    ends = [loss(state, mx.array(1.0 + sign * 1e-2)).item() for sign in (1, -1)]
    # The loss is quadratic in c, so the central difference is exact but for rounding.
    assert abs(along - (ends[0] - ends[1]) / 2e-2) <= 1e-2 * abs(along)
    whole = mx.grad(loss)(state, mx.array(1.0))
    assert abs((whole * state).sum().item() - along) <= tolerance(mx.float32, gradient=True) * abs(along)


@pytest.mark.parametrize("form", ["native", "mlx_own", "chunked"])
def test_a_compiled_gradient_keeps_no_state_per_token(form: str) -> None:
    length, heads, width = 256, 2, 32
    generator = np.random.default_rng(5)
    q, k, v = (mx.array(generator.standard_normal((1, heads, length, width)).astype(np.float32) / 6) for _ in range(3))
    gates = mx.array(generator.uniform(0.5, 1, (1, length, heads)).astype(np.float32))
    recurrence = getattr(gated_delta, form)(32)

    def loss(q: mx.array, k: mx.array, v: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
        return gated_delta.update(recurrence, q, k, v, (gamma, beta), _spec())[0].sum()

    # The first call also compiles, which needs memory of its own.
    gradient_of = mx.compile(mx.grad(loss, argnums=(0, 1, 2, 3, 4)))
    mx.eval(gradient_of(q, k, v, gates, gates))
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(gradient_of(q, k, v, gates, gates))
    bytes_of_states = length * heads * width * width * 4
    # MLX's own gradient needs more than ten times that of all states.
    assert mx.get_peak_memory() - held <= 3 * bytes_of_states
