"""The layer of Gated DeltaNet: its cache, merged rows, initial gates, refusals and variants."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from tests.tolerances import tolerance
from tests.zoo.attention.cases import HEAD_DIM, HIDDEN_SIZE, NUM_HEADS, Case, hidden_states, layer_shape
from zoo.attention import VariantConfig, build_attention, mechanism
from zoo.attention.catalog import attention_names, variant
from zoo.attention.variants.gated_delta import NORM_EPS, GatedDeltaAttention, GatedDeltaConfig
from zoo.config import UserError
from zoo.layers.caches import merge_rows
from zoo.ops.masks import MaskSpec

FORMS = tuple(mechanism("gated_delta").implementations)
CASES = [Case("gated_delta", form, GatedDeltaConfig(chunk_size=4)) for form in FORMS]


def _layer(form: str = "chunked", **changes: int) -> GatedDeltaAttention:
    mx.random.seed(11)
    return GatedDeltaAttention(GatedDeltaConfig(**changes), form, layer_shape(causal=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_of_unequal_history_decode_in_one_batch(case: Case) -> None:
    layer, x_BLD = case.layer(causal=True), hidden_states(0, 3, 19)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    lengths, caches = [1, 9, 14], [layer.make_cache() for _ in range(3)]
    for row, (length, cache) in enumerate(zip(lengths, caches, strict=True)):
        layer(x_BLD[row : row + 1, :length], mask=MaskSpec(causal=True), cache=cache)
    merged = merge_rows(caches)
    for step in range(5):
        tokens = mx.stack([x_BLD[row, length + step] for row, length in enumerate(lengths)])[:, None]
        y_BLD = layer(tokens, mask=MaskSpec(causal=True, offset=merged.offset), cache=merged)
        for row, length in enumerate(lengths):
            assert mx.abs(y_BLD[row, 0] - whole[row, length + step]).max().item() <= tolerance(mx.float32)


def test_a_prompt_read_by_one_form_decodes_by_another() -> None:
    x_BLD = hidden_states(1, 2, 13)
    layers = [_layer(form) for form in FORMS]
    whole = layers[0](x_BLD, mask=MaskSpec(causal=True))
    cache, outputs, offset = layers[0].make_cache(), [], 0
    for layer, length in zip([*layers, *layers], [5, 2, 1, 3, 1, 1], strict=True):
        mask = MaskSpec(causal=True, offset=offset)
        outputs.append(layer(x_BLD[:, offset : offset + length], mask=mask, cache=cache))
        offset += length
    assert mx.abs(mx.concatenate(outputs, axis=1) - whole).max().item() <= tolerance(mx.float32)


@pytest.mark.parametrize("conv_size", [1, 2, 4])
def test_the_cache_holds_a_float32_state_and_the_convolutions_tails(conv_size: int) -> None:
    layer = _layer(conv_size=conv_size)
    layer.update(tree_map(lambda array: array.astype(mx.bfloat16), layer.parameters()))
    cache = layer.make_cache()
    y_BLD = layer(hidden_states(2, 3, 2, mx.bfloat16), mask=MaskSpec(causal=True), cache=cache)
    assert y_BLD.dtype == mx.bfloat16
    assert cache[0].shape == (3, NUM_HEADS, HEAD_DIM, HEAD_DIM)
    assert [state.dtype for state in cache.cache] == [mx.float32] + [mx.bfloat16] * 3
    assert {tail.shape for tail in cache.cache[1:]} == {(3, conv_size - 1, NUM_HEADS * HEAD_DIM)}
    assert cache.nbytes == layer.cache_bytes(batch_size=3, length=2, dtype=mx.bfloat16)
    assert layer.cache_bytes(batch_size=3, length=0, dtype=mx.bfloat16) == layer.make_cache().nbytes == 0


@pytest.mark.parametrize("conv_size", [1, 2])
def test_other_convolutions_decode_like_the_whole(conv_size: int) -> None:
    layer, x_BLD = _layer(conv_size=conv_size), hidden_states(3, 2, 7)
    whole, cache = layer(x_BLD, mask=MaskSpec(causal=True)), layer.make_cache()
    for offset in range(7):
        y_BLD = layer(x_BLD[:, offset : offset + 1], mask=MaskSpec(causal=True, offset=offset), cache=cache)
        assert mx.abs(y_BLD[:, 0] - whole[:, offset]).max().item() <= tolerance(mx.float32)


def test_the_layer_computes_the_published_formula() -> None:
    """Everything around the recurrence, once more in float64 NumPy."""
    layer, x_BLD = _layer(), hidden_states(4, 2, 9)
    weights = {name: np.array(layer[name].weight, dtype=np.float64) for name in ("q_proj", "k_proj", "v_proj")}
    a, b, g, o = (np.array(layer[f"{name}_proj"].weight, dtype=np.float64) for name in "abgo")
    x = np.array(x_BLD, dtype=np.float64)

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def convolved(name: str) -> np.ndarray:
        taps = np.array(layer[f"{name}_conv"].weight, dtype=np.float64)[:, :, 0].T
        padded = np.pad(x @ weights[f"{name}_proj"].T, [(0, 0), (3, 0), (0, 0)])
        y = silu(sum(padded[:, tap : tap + 9] * taps[tap] for tap in range(4)))
        return y.reshape(2, 9, NUM_HEADS, HEAD_DIM).swapaxes(1, 2)

    q, k, v = (convolved(name) for name in "qkv")
    q, k = (array / np.sqrt((array**2).sum(axis=-1, keepdims=True) + NORM_EPS) for array in (q, k))
    step = np.log1p(np.exp(x @ a.T + np.array(layer.dt_bias, dtype=np.float64)))
    gates = np.exp(-np.exp(np.array(layer.A_log, dtype=np.float64)) * step), 1 / (1 + np.exp(-(x @ b.T)))
    spec = mechanism("gated_delta").make_spec(GatedDeltaConfig(), MaskSpec(causal=True), HEAD_DIM, None)
    y = mechanism("gated_delta").reference(q, k, v, *gates, spec).swapaxes(1, 2)
    y = y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + layer.shape.norm_eps)
    y = (y * silu(x @ g.T).reshape(y.shape)).reshape(2, 9, -1) @ o.T
    assert np.abs(np.array(layer(x_BLD, mask=MaskSpec(causal=True))) - y).max() <= tolerance(mx.float32)


def test_gates_start_in_the_published_range() -> None:
    layer = _layer()
    speed, step = np.exp(np.array(layer.A_log)), np.log1p(np.exp(np.array(layer.dt_bias)))
    assert ((speed >= 1) & (speed <= 16)).all()
    assert ((step >= 0.99e-3) & (step <= 1.01e-1)).all()
    assert len(set(speed)) == len(set(step)) == NUM_HEADS


@pytest.mark.parametrize("positions", ["none", "learned", "rotary"])
def test_positions_of_the_model_leave_the_layer_as_it_is(positions: str) -> None:
    x_BLD = hidden_states(5, 1, 6)
    layers = [CASES[0].layer(causal=True, positions=kind) for kind in ("none", positions)]
    plain, other = (layer(x_BLD, mask=MaskSpec(causal=True)) for layer in layers)
    assert mx.array_equal(plain, other).item()


def test_useful_work_is_three_products_with_the_state() -> None:
    layer, inner = _layer(), NUM_HEADS * HEAD_DIM
    projections = HIDDEN_SIZE * (5 * inner + 2 * NUM_HEADS)
    assert layer.flops(query_length=1, key_length=900) == 2 * (projections + 3 * 4 * inner + 3 * inner * HEAD_DIM)
    assert layer.flops(query_length=7, key_length=7) == 7 * layer.flops(query_length=1, key_length=1)


def test_a_model_that_shares_heads_takes_every_shipped_variant() -> None:
    shipped = [variant(name) for name in attention_names()]
    ours = [one for one in shipped if isinstance(one, VariantConfig) and one.mechanism == "gated_delta"]
    assert {one.implementation for one in ours} == set(FORMS)
    for one in ours:
        layer = build_attention(one, layer_shape(causal=True, num_kv_heads=2, positions="rotary"), 0)
        assert layer(hidden_states(6, 1, 3), mask=MaskSpec(causal=True)).shape == (1, 3, HIDDEN_SIZE)
    with pytest.raises(UserError, match="as many key/value heads"):
        CASES[0].layer(causal=True, num_kv_heads=2)


@pytest.mark.parametrize(("changes", "message"), [({"conv_size": 0}, "conv_size"), ({"chunk_size": 0}, "chunk_size")])
def test_wrong_parameters_are_named(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GatedDeltaConfig(**changes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_keys_of_norm_one_keep_the_state_bounded_over_a_long_text(case: Case) -> None:
    layer = case.layer(causal=True)
    cache = layer.make_cache()
    x_BLD = hidden_states(7, 1, 400) * 10
    for start in range(0, 400, 100):
        y_BLD = layer(x_BLD[:, start : start + 100], mask=MaskSpec(causal=True, offset=start), cache=cache)
        assert mx.isfinite(y_BLD).all().item()
    # Each value of a head overwrites: no entry can exceed the sum of a few values, let alone that of 400.
    assert mx.abs(cache[0]).max().item() < 100 * math.sqrt(HEAD_DIM)
