"""The contract of decoding: any cutting of a text into chunks and tokens equals the full forward pass."""

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from tests.tolerances import tolerance
from tests.zoo.attention.cases import CASES, DECODING, Case, hidden_states
from zoo.attention import Attention
from zoo.config import UserError
from zoo.ops.masks import MaskSpec

CUTS = [[1] * 33, [33], [13, 1, 1, 7, 1, 10], [4, 5, 6, 1, 17], [32, 1], [1, 32]]


def decode(layer: Attention, x_BLD: mx.array, cuts: list[int], *, slip: int = 0) -> mx.array:
    """Runs the layer over chunks with a cache; `slip` falsifies the offset, to show that the tests would see it."""
    cache, outputs, offset = layer.make_cache(), [], 0
    for length in cuts:
        mask = MaskSpec(causal=True, offset=max(0, offset + slip) if offset else 0)
        outputs.append(layer(x_BLD[:, offset : offset + length], mask=mask, cache=cache))
        offset += length
        assert cache.offset == offset
    return mx.concatenate(outputs, axis=1)


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("case", DECODING, ids=str)
def test_prefill_in_chunks_then_decoding_equals_the_full_forward(case: Case, positions: str) -> None:
    if positions == "alibi" and not case.capabilities.alibi:
        return
    changes = {"num_kv_heads": 2} if case.capabilities.grouped_heads else {}
    layer, x_BLD = case.layer(causal=True, positions=positions, **changes), hidden_states(0, 2, 33)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    for cuts in CUTS:
        assert mx.abs(decode(layer, x_BLD, cuts) - whole).max().item() <= tolerance(mx.float32), cuts


@pytest.mark.parametrize("case", [case for case in DECODING if case.mechanism.pattern is not None], ids=str)
@pytest.mark.parametrize("slip", [-1, 1])
def test_a_cache_off_by_one_would_be_seen(case: Case, slip: int) -> None:
    layer, x_BLD = case.layer(causal=True, positions="rotary"), hidden_states(0, 2, 33)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    faulty = decode(layer, x_BLD, [13, 1, 1, 7, 1, 10], slip=slip)
    assert mx.abs(faulty - whole).max().item() > 100 * tolerance(mx.float32)


@pytest.mark.parametrize("case", DECODING, ids=str)
def test_cache_bytes_equal_the_real_cache(case: Case) -> None:
    changes = {"num_kv_heads": 3} if case.capabilities.grouped_heads else {}
    layer = case.layer(causal=True, **changes)
    cache = layer.make_cache()
    x_BLD = hidden_states(1, 2, 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Of the shipped 256 slots, hundreds of tokens would have to be read to cross a border.
        for kind in (KVCache, RotatingKVCache):
            monkeypatch.setattr(kind, "step", 3)
        for step in range(30):
            layer(x_BLD, mask=MaskSpec(causal=True, offset=step), cache=cache)
            expected = layer.cache_bytes(batch_size=2, length=step + 1, dtype=mx.float32)
            assert cache.nbytes == expected, f"after {step + 1} tokens"
            mx.eval(cache.state)


@pytest.mark.parametrize("case", [case for case in DECODING if case.capabilities.bounded_cache], ids=str)
def test_a_bounded_cache_stops_growing(case: Case) -> None:
    layer = case.layer(causal=True)
    sizes = {layer.cache_bytes(batch_size=1, length=length, dtype=mx.float32) for length in (300, 3_000, 300_000)}
    assert len(sizes) == 1


@pytest.mark.parametrize("case", DECODING, ids=str)
def test_a_trimmable_cache_forgets_the_last_tokens(case: Case) -> None:
    layer, x_BLD = case.layer(causal=True, positions="rotary"), hidden_states(2, 1, 21)
    cache = layer.make_cache()
    layer(x_BLD[:, :17], mask=MaskSpec(causal=True), cache=cache)
    if not case.capabilities.trimmable:
        assert not cache.is_trimmable()
        return
    cache.trim(6)
    again = layer(x_BLD[:, 11:], mask=MaskSpec(causal=True, offset=11), cache=cache)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    assert mx.abs(again - whole[:, 11:]).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_that_cannot_decode_says_so(case: Case) -> None:
    if case.capabilities.bidirectional:
        with pytest.raises(UserError, match="decode"):
            case.layer(causal=False).make_cache()


@pytest.mark.parametrize("case", DECODING, ids=str)
def test_padding_and_documents_are_refused_with_a_cache(case: Case) -> None:
    layer = case.layer(causal=True)
    for mask in (
        MaskSpec(causal=True, lengths_B=mx.array([2])),
        MaskSpec(causal=True, segments_BL=mx.array([[0, 1, 1]])),
    ):
        with pytest.raises(UserError, match="must not be combined with a cache"):
            layer(hidden_states(3, 1, 3), mask=mask, cache=layer.make_cache())
