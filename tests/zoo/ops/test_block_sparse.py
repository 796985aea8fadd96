"""Block-sparse attention: one softmax over global tokens and neighbouring blocks, equal to the reference everywhere."""

from typing import Any

import mlx.core as mx
import pytest

from tests.tolerances import tolerance
from tests.zoo.ops.oracle import Op, gradient_error, peak_bytes, qkv, repeated, value_error, variant
from zoo.layers.positions import alibi_slopes
from zoo.ops import block_sparse, softmax
from zoo.ops.masks import MaskSpec

VALUE, GRADIENT = tolerance(mx.float32), tolerance(mx.float32, gradient=True)


@pytest.fixture
def blocked_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense path must not do the work of the tests that are about blocks."""

    def refuse(*_: object) -> mx.array:
        raise AssertionError("the dense path was taken")

    monkeypatch.setattr(softmax, "fused", refuse)


def _blocked(mask: MaskSpec, **parameters: Any) -> tuple[Op, Any]:
    return variant("block_sparse", "blocked", mask, **parameters)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block_size", [16, 32, 64])
@pytest.mark.parametrize("num_global_tokens", [0, 1, 4])
def test_shipped_sizes_equal_the_reference(
    blocked_only: None, causal: bool, block_size: int, num_global_tokens: int
) -> None:
    op, spec = _blocked(MaskSpec(causal=causal), block_size=block_size, num_global_tokens=num_global_tokens)
    arrays = qkv(block_size, B=1, N=4, K=2, L=5 * block_size - 3)
    assert value_error(op, arrays, spec) <= VALUE
    assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("num_previous_blocks", [0, 1, 3])
@pytest.mark.parametrize("num_global_tokens", [0, 1, 4, 11])
def test_neighbours_and_global_tokens_equal_the_reference(
    blocked_only: None, causal: bool, num_previous_blocks: int, num_global_tokens: int
) -> None:
    sizes = {"num_previous_blocks": num_previous_blocks, "num_global_tokens": num_global_tokens}
    op, spec = _blocked(MaskSpec(causal=causal), block_size=5, **sizes)
    for length in (61, 65):
        arrays = qkv(length, B=3, K=3, L=length)
        assert value_error(op, arrays, spec) <= VALUE
        assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("num_global_tokens", [0, 1, 4, 40])
def test_every_length_equals_the_reference(causal: bool, num_global_tokens: int) -> None:
    op, spec = _blocked(MaskSpec(causal=causal), block_size=6, num_global_tokens=num_global_tokens)
    for length in (1, 2, 5, 6, 7, 11, 12, 13, 17, 18, 19, 24, 25, 37):
        for batch_size in (1, 3):
            assert value_error(op, qkv(length, B=batch_size, L=length), spec) <= VALUE


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("num_global_tokens", [0, 3])
def test_padding_documents_and_alibi_equal_the_reference(
    blocked_only: None, causal: bool, num_global_tokens: int
) -> None:
    arrays = qkv(1, B=3, K=2, L=53)
    segments = mx.array([[0] * 2 + [1] * 51, [0] * 53, [0, 1, 2] + [3] * 20 + [4] * 30])
    for rest in (
        {"lengths_B": mx.array([53, 1, 22])},
        {"segments_BL": segments},
        {"lengths_B": mx.array([12, 53, 3]), "segments_BL": segments},
    ):
        for slopes_N in (None, alibi_slopes(6)):
            sizes = {"block_size": 5, "num_global_tokens": num_global_tokens}
            op, spec = _blocked(MaskSpec(causal=causal, **rest), slopes_N=slopes_N, **sizes)
            assert value_error(op, arrays, spec) <= VALUE
            assert gradient_error(op, arrays, spec) <= GRADIENT


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("num_kv_heads", [2, 4, 8])
def test_grouped_heads_equal_repeated_ones(blocked_only: None, causal: bool, num_kv_heads: int) -> None:
    op, spec = _blocked(MaskSpec(causal=causal), block_size=7)
    arrays = qkv(2, N=8, K=num_kv_heads, L=67)
    grouped, multi = (op(*map(mx.array, inputs), spec) for inputs in (arrays, repeated(arrays)))
    assert mx.abs(grouped - multi).max().item() <= VALUE


def test_queries_after_a_history_equal_the_reference() -> None:
    op, spec = _blocked(MaskSpec(causal=True, offset=41), block_size=4)
    assert value_error(op, qkv(3, L=6, S=47), spec) <= VALUE


def test_future_tokens_do_not_change_the_past(blocked_only: None) -> None:
    op, spec = _blocked(MaskSpec(causal=True), block_size=6, num_global_tokens=9)
    q, k, v = (mx.array(array) for array in qkv(4, B=1, L=55))
    before = op(q, k, v, spec)
    for position in (3, 5, 6, 29, 30, 54):
        later = (mx.arange(55) >= position)[:, None]
        after = op(q, mx.where(later, k + 3, k), mx.where(later, -v, v), spec)
        assert mx.array_equal(before[:, :, :position], after[:, :, :position]).item()
        assert mx.abs(before[:, :, position] - after[:, :, position]).max().item() > VALUE


@pytest.mark.parametrize(
    "fault",
    [
        {"num_previous_blocks": 2},
        {"num_previous_blocks": 0},
        {"num_global_tokens": 3},
        {"block_size": 7},
        {"causal": False},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_leak_across_the_border_of_a_block_would_be_seen(fault: dict[str, Any]) -> None:
    right = {"block_size": 6, "num_previous_blocks": 1, "num_global_tokens": 2}
    arrays = qkv(5, L=61)
    op, spec = _blocked(MaskSpec(causal=True), **right)
    assert value_error(op, arrays, spec) <= VALUE
    wrong = {**right, **fault}
    faulty, faulty_spec = _blocked(MaskSpec(causal=wrong.pop("causal", True)), **wrong)
    assert value_error(lambda q, k, v, _: faulty(q, k, v, faulty_spec), arrays, spec) > 1000 * VALUE


def test_global_keys_counted_twice_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    op, spec = _blocked(MaskSpec(causal=True), block_size=6, num_global_tokens=2)
    arrays = qkv(6, L=61)
    right = block_sparse._neighbour
    # Without its number of global tokens, a block does not know which of its keys are global.
    monkeypatch.setattr(block_sparse, "_neighbour", lambda *rest: right(*rest[:-1], (rest[-1][0], 0, rest[-1][2])))
    assert value_error(op, arrays, spec) > 1000 * VALUE


def test_untransposed_values_would_be_seen() -> None:
    op, spec = _blocked(MaskSpec(causal=True), block_size=6)

    def faulty(q: mx.array, k: mx.array, v: mx.array, spec: object) -> mx.array:
        return op(q, k, v.swapaxes(1, 2).reshape(v.shape), spec)

    assert value_error(faulty, qkv(7, N=8, K=4, L=61), spec) > 1000 * VALUE


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("causal", [True, False])
def test_memory_grows_with_the_length_and_not_its_square(causal: bool, compiled: bool) -> None:
    op, spec = _blocked(MaskSpec(causal=causal), H=16)
    short, long = (peak_bytes(op, spec, N=2, L=length, H=16, compiled=compiled) for length in (2048, 4096))
    assert long < 2.3 * short
    dense_scores = 2 * 4096 * 4096 * 4
    assert long < dense_scores / 2
