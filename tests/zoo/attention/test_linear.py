"""The linear layer: merged rows of unequal history, its cache, its refusals and its variants."""

import itertools

import mlx.core as mx
import pytest
from mlx.utils import tree_map

from tests.tolerances import tolerance
from tests.zoo.attention.cases import HEAD_DIM, NUM_HEADS, Case, hidden_states, layer_shape
from zoo.attention import VariantConfig, mechanism
from zoo.attention.catalog import attention_names, variant
from zoo.attention.mechanism import AUTO
from zoo.attention.variants.linear import LinearConfig
from zoo.config import UserError
from zoo.layers.caches import merge_rows
from zoo.ops.masks import MaskSpec

CASES = [Case("linear", scan, LinearConfig(chunk_size=4)) for scan in mechanism("linear").implementations_here()]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("positions", ["none", "rotary"])
def test_rows_of_unequal_history_decode_in_one_batch(case: Case, positions: str) -> None:
    layer, x_BLD = case.layer(causal=True, positions=positions, num_kv_heads=2), hidden_states(0, 3, 19)
    whole = layer(x_BLD, mask=MaskSpec(causal=True))
    lengths, caches = [3, 9, 14], [layer.make_cache() for _ in range(3)]
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
    layers = [case.layer(causal=True, positions="rotary") for case in CASES]
    whole = layers[0](x_BLD, mask=MaskSpec(causal=True))
    cache, outputs, offset = layers[0].make_cache(), [], 0
    for layer, length in zip(itertools.cycle(layers), [5, 2, 1, 3, 1, 1], strict=False):
        mask = MaskSpec(causal=True, offset=offset)
        outputs.append(layer(x_BLD[:, offset : offset + length], mask=mask, cache=cache))
        offset += length
    assert mx.abs(mx.concatenate(outputs, axis=1) - whole).max().item() <= tolerance(mx.float32)


def test_the_state_stays_in_float32_in_a_bfloat16_model() -> None:
    layer = CASES[0].layer(causal=True, num_kv_heads=2)
    layer.update(tree_map(lambda array: array.astype(mx.bfloat16), layer.parameters()))
    cache = layer.make_cache()
    y_BLD = layer(hidden_states(2, 3, 5, mx.bfloat16), mask=MaskSpec(causal=True), cache=cache)
    assert y_BLD.dtype == mx.bfloat16
    assert cache[0].dtype == mx.float32
    assert cache[0].shape == (3, 2, HEAD_DIM, HEAD_DIM + 1)
    assert cache.nbytes == layer.cache_bytes(batch_size=3, length=5, dtype=mx.bfloat16)
    assert layer.cache_bytes(batch_size=3, length=0, dtype=mx.bfloat16) == layer.make_cache().nbytes == 0


def test_useful_work_is_one_write_a_key_and_one_read_a_query() -> None:
    layer = CASES[0].layer(causal=True, num_kv_heads=2)
    mixing = layer.mixing_flops(query_length=7, key_length=7)
    assert mixing == 7 * 2 * HEAD_DIM * HEAD_DIM * (2 + NUM_HEADS)
    assert layer.mixing_flops(query_length=1, key_length=10_000) * 7 == mixing, (
        "a decoding step costs what a token costs"
    )


def test_every_form_counts_the_same_useful_work() -> None:
    counts = {case.layer(causal=True).flops(query_length=9, key_length=9) for case in CASES}
    assert len(counts) == 1


@pytest.mark.parametrize("name", ["linear_cumsum", "linear_recurrent"])
def test_an_encoder_refuses_the_forms_that_only_sum_causally(name: str) -> None:
    chosen = variant(name)
    assert isinstance(chosen, VariantConfig)
    declared, shape = mechanism("linear"), layer_shape(causal=False)
    for make in (declared.make_layer, declared.make_mixer):
        with pytest.raises(UserError, match="this implementation cannot look ahead"):
            make(chosen.parameters, chosen.implementation, shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"feature_map": "gelu"}, "feature_map"), ({"chunk_size": 0}, "chunk_size"), ({"eps": 0.0}, "eps")],
)
def test_wrong_parameters_are_named(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LinearConfig(**changes)


def test_the_shipped_variants_cover_every_form_and_feature_map() -> None:
    shipped = [variant(name) for name in attention_names()]
    linear = [one for one in shipped if isinstance(one, VariantConfig) and one.mechanism == "linear"]
    assert {one.implementation for one in linear} == {AUTO, "cumsum", "recurrent"}
    assert {one.parameters.feature_map for one in linear} == {"elu_plus_one", "relu", "squared_relu"}
    classes = {one.name: one.capabilities.exact_class for one in linear}
    assert classes["linear"] == classes["linear_cumsum"] == classes["linear_recurrent"] != classes["linear_relu"]
