"""Causal sums: three forms, one meaning, at every chunk border, document border and cut."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops import causal_sums

B, K, G, H, A, CHUNK = 2, 3, 2, 5, 7, 4


def _chunked(*arrays: Any, **changes: Any) -> tuple[mx.array, mx.array]:
    return causal_sums.chunked(*arrays, chunk_size=CHUNK, **changes)


FORMS: dict[str, Callable[..., tuple[mx.array, mx.array]]] = {
    "chunked": _chunked,
    "cumulative": causal_sums.cumulative,
    "recurrent": causal_sums.recurrent,
}


def _inputs(length: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = [(B, K, G, length, H), (B, K, length, H), (B, K, length, A)]
    return [generator.standard_normal(shape).astype(np.float32) / np.sqrt(H) for shape in shapes]


def _expected(
    arrays: list[np.ndarray],
    segments: np.ndarray | None = None,
    state: np.ndarray | None = None,
    *,
    strict: bool = False,
) -> np.ndarray:
    """The double sum of the definition, float64."""
    q, k, v = (array.astype(np.float64) for array in arrays)
    length = q.shape[3]
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    allowed = np.broadcast_to(key < query if strict else key <= query, (B, length, length))
    if segments is not None:
        allowed = allowed & (segments[:, :, None] == segments[:, None, :])
    weights = np.einsum("bkglh,bksh->bkgls", q, k) * allowed[:, None, None]
    sums = np.einsum("bkgls,bksa->bkgla", weights, v)
    return sums if state is None else sums + np.einsum("bkglh,bkha->bkgla", q, state)


def _difference(actual: mx.array, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(np.array(actual) - expected).max())


def _on_mlx(arrays: list[np.ndarray]) -> list[mx.array]:
    return [mx.array(array) for array in arrays]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9, 23])
def test_sums_equal_the_definition_at_every_length(form: str, length: int) -> None:
    arrays = _inputs(length)
    sums, state = FORMS[form](*_on_mlx(arrays))
    assert _difference(sums, _expected(arrays)) <= tolerance(mx.float32)
    total = np.einsum("bklh,bkla->bkha", *(array.astype(np.float64) for array in arrays[1:]))
    assert _difference(state, total) <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", range(1, 11))
def test_any_cut_hands_the_state_on(form: str, cut: int) -> None:
    arrays = _on_mlx(_inputs(11))
    whole, last = FORMS[form](*arrays)
    first, state = FORMS[form](*[array[..., :cut, :] for array in arrays])
    second, state = FORMS[form](*[array[..., cut:, :] for array in arrays], None, state)
    assert mx.abs(mx.concatenate([first, second], axis=3) - whole).max().item() <= tolerance(mx.float32)
    assert mx.abs(state - last).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start", range(1, 11))
def test_a_document_starts_afresh_wherever_it_starts(form: str, start: int) -> None:
    arrays, segments = _inputs(11), np.zeros((B, 11), dtype=np.int32)
    segments[0, start:] = 1
    # The other row: a document of one token, so that two borders are neighbours, and one of many chunks.
    segments[1, start:] = 5
    segments[1, start + 1 :] = 6
    sums, state = FORMS[form](*_on_mlx(arrays), mx.array(segments))
    assert _difference(sums, _expected(arrays, segments)) <= tolerance(mx.float32)
    last = (segments == segments[:, -1:]).astype(np.float64)
    of_last_document = np.einsum("bl,bklh,bkla->bkha", last, *(array.astype(np.float64) for array in arrays[1:]))
    assert _difference(state, of_last_document) <= tolerance(mx.float32)


@pytest.mark.parametrize("form", FORMS)
def test_a_short_document_after_a_loud_one_keeps_its_precision(form: str) -> None:
    arrays, segments = _inputs(23), np.zeros((B, 23), dtype=np.int32)
    segments[:, 18:] = 1
    arrays[2][:, :, :18] *= 1e6
    sums, _ = FORMS[form](*_on_mlx(arrays), mx.array(segments))
    expected = _expected(arrays, segments)
    assert _difference(sums[..., 18:, :], expected[..., 18:, :]) <= tolerance(mx.float32)


def test_a_border_off_by_one_would_be_seen() -> None:
    arrays, segments = _inputs(11), np.zeros((B, 11), dtype=np.int32)
    segments[:, 5:] = 1
    late = np.zeros((B, 11), dtype=np.int32)
    late[:, 6:] = 1
    for form in FORMS.values():
        sums, _ = form(*_on_mlx(arrays), mx.array(late))
        assert _difference(sums, _expected(arrays, segments)) > 1000 * tolerance(mx.float32)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [1, 4, 11])
def test_strict_sums_leave_the_token_itself_out(length: int, packed: bool) -> None:
    arrays = _inputs(length)
    segments = np.array([[0] * 3 + [1] * 8, [0] * 8 + [2] * 3], dtype=np.int32)[:, :length] if packed else None
    sums, _ = _chunked(*_on_mlx(arrays), None if segments is None else mx.array(segments), strict=True)
    assert _difference(sums, _expected(arrays, segments, strict=True)) <= tolerance(mx.float32)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("packed", [False, True], ids=["state", "packed"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_the_definitions_directional_derivatives(form: str, packed: bool, compiled: bool) -> None:
    """Through documents, through the state handed in and through the state handed out."""
    length, generator = 11, np.random.default_rng(3)
    arrays = _inputs(length)
    segments = np.array([[0] * 3 + [1] * 8, [0] * 7 + [1] + [2] * 3], dtype=np.int32) if packed else None
    if not packed:
        arrays.append(generator.standard_normal((B, K, H, A)).astype(np.float32))
    of_sums = generator.standard_normal((B, K, G, length, A))
    of_state = np.zeros((B, K, H, A)) if packed else generator.standard_normal((B, K, H, A))

    def expected_loss(*inputs: np.ndarray) -> float:
        q, k, v, *state = inputs
        total = np.einsum("bklh,bkla->bkha", k, v) + (state[0] if state else 0)
        return float((_expected([q, k, v], segments, *state) * of_sums).sum() + (total * of_state).sum())

    def loss(q: mx.array, k: mx.array, v: mx.array, *state: mx.array) -> mx.array:
        documents = None if segments is None else mx.array(segments)
        sums, last = FORMS[form](q, k, v, documents, *state)
        value = (sums * mx.array(of_sums, dtype=mx.float32)).sum()
        return value if packed else value + (last * mx.array(of_state, dtype=mx.float32)).sum()

    gradient_of = mx.grad(loss, argnums=tuple(range(len(arrays))))
    gradients = (mx.compile(gradient_of) if compiled else gradient_of)(*_on_mlx(arrays))
    step = 1e-5
    for index, gradient in enumerate(gradients):
        direction = generator.standard_normal(arrays[index].shape)
        direction /= np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            moved = [array.astype(np.float64) for array in arrays]
            moved[index] = moved[index] + sign * step * direction
            ends.append(expected_loss(*moved))
        expected = (ends[0] - ends[1]) / (2 * step)
        actual = float((np.array(gradient, dtype=np.float64) * direction).sum())
        assert abs(actual - expected) <= tolerance(mx.float32, gradient=True) * max(1.0, abs(expected))


def test_document_starts_are_the_changes_of_the_number() -> None:
    segments = mx.array([[3, 3, 4, 9, 9], [0, 0, 0, 0, 0]])
    assert causal_sums.document_starts(segments).tolist() == [
        [False, False, True, True, False],
        [False] * 5,
    ]
