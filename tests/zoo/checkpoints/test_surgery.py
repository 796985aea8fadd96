"""Surgery: what stays is the original's, what goes and comes is told, and the original is not touched."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.attention.cases import CAUSAL, Case
from zoo.attention import LayerPattern, VariantConfig, variant_from_mapping
from zoo.attention.catalog import variant
from zoo.checkpoints import load_checkpoint, save_checkpoint
from zoo.checkpoints.surgery import swap_attention
from zoo.config import UserError
from zoo.models import LlamaConfig, build_model
from zoo.models.adapters import Adapters, LoRAConfig, attach_adapters
from zoo.runtime.seeds import random_key

TOKENS = mx.array(np.random.default_rng(3).integers(0, 31, (2, 17)), dtype=mx.int32)
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")


def model(attention=None, **changes):
    fields = {
        "attention": variant("mha") if attention is None else attention,
        "vocab_size": 31,
        "num_layers": 3,
        "hidden_size": 48,
        "num_heads": 6,
        "num_kv_heads": 6,
        "head_dim": 10,
        "intermediate_size": 20,
        "max_seq_len": 64,
        "qkv_bias": True,
        "qk_norm": True,
        "init_std": 0.3,
    }
    mx.random.seed(5)
    made = build_model(LlamaConfig(**{**fields, **changes}))
    made.eval()
    mx.eval(made.parameters())
    return made


def softmax(name="grouped", **parameters):
    return variant_from_mapping({"name": name, "mechanism": "softmax", **parameters})


def of(case: Case) -> VariantConfig:
    return VariantConfig(
        name="case", mechanism=case.mechanism_name, implementation=case.implementation, parameters=case.parameters
    )


def arrays(module):
    return dict(tree_flatten(module.parameters()))


def largest(one, other):
    return mx.abs(one(TOKENS) - other(TOKENS)).max().item()


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_the_copy_is_a_model_of_that_attention_with_the_originals_weights(case):
    original = model()
    before, logits, key = arrays(original), original(TOKENS), random_key()
    swapped, report = swap_attention(original, of(case))
    assert random_key() == key
    assert not swapped.training
    built = build_model(swapped.config)
    built.load_weights(tree_flatten(swapped.parameters()))
    built.eval()
    assert mx.array_equal(built(TOKENS), swapped(TOKENS)).item()
    after = arrays(swapped)
    inside = {name.partition("self_attn.")[2] for name in after if "self_attn." in name}
    assert inside == set(report.reused) | set(report.regrouped) | set(report.new)
    assert all(count == 3 for what in ("reused", "new", "dropped") for count in getattr(report, what).values())
    for name, array in before.items():
        own = name.partition("self_attn.")[2]
        if own not in report.regrouped and own not in report.dropped:
            assert mx.array_equal(array, after[name]).item()
    assert not [name for name in report.new if name.partition(".")[0] in NAMES[:4]]
    assert bool(report.new) == bool(report.begins)
    assert report.parameters_after - report.parameters_before == swapped.num_parameters() - original.num_parameters()
    assert mx.array_equal(original(TOKENS), logits).item()
    again, _ = swap_attention(original, of(case))
    assert all(mx.array_equal(array, after[name]).item() for name, array in arrays(again).items())


def test_the_copy_is_trained_without_the_original():
    original = model()
    swapped, _ = swap_attention(original, variant("swa"))
    logits = original(TOKENS)
    swapped.update(nn.utils.tree_map(lambda array: array + 1, swapped.parameters()))
    swapped.freeze()
    assert mx.array_equal(original(TOKENS), logits).item()
    assert original.trainable_parameters()["embed_tokens"]


@pytest.mark.parametrize("name", ["mha", "mha_manual", "mha_tiled", "adaptive"])
def test_exact_variants_change_no_logit(name):
    original = model(num_kv_heads=2)
    swapped, report = swap_attention(original, variant(name))
    assert largest(swapped, original) <= tolerance(mx.float32)
    assert report.new == report.dropped == report.regrouped == {}
    assert not report.begins


def test_layers_are_exchanged_by_number_and_the_config_says_so(tmp_path):
    original = model()
    hybrid = LayerPattern(name="two", layer_pattern=(variant("swa"), variant("linear")))
    swapped, report = swap_attention(original, hybrid, layers=[1, -1, 1])
    assert report.layers == (1, 2)
    assert [each.name for each in swapped.config.attention.layer_pattern] == ["mha", "linear", "swa"]
    assert report.reused["q_proj.weight"] == 2
    loaded = load_checkpoint(save_checkpoint(tmp_path / "one", model=swapped)).model
    assert mx.array_equal(loaded(TOKENS), swapped(TOKENS)).item()
    second, _ = swap_attention(loaded, variant("mha"), layers=[1, 2])
    assert largest(second, original) == 0
    assert {each.name for each in second.config.attention.layer_pattern} == {"mha"}


@pytest.mark.parametrize(
    ("layers", "said"),
    [([3], "from -3 to 2; got 3"), ([0, -4], "got -4"), ([], "at least one layer")],
)
def test_layers_that_do_not_exist_are_named(layers, said):
    with pytest.raises(UserError, match=said):
        swap_attention(model(), variant("swa"), layers=layers)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_heads_are_pooled_by_their_mean(heads):
    original = model()
    swapped, report = swap_attention(original, softmax(num_kv_heads=heads))
    assert set(report.regrouped) == {f"{name}_proj.{part}" for name in "kv" for part in ("weight", "bias")}
    old, new = (np.array(each.layers[1].self_attn.k_proj.weight) for each in (original, swapped))
    # One after the other: head h of the model reads the new head h // (6 // heads).
    for group in range(heads):
        members = [old[10 * head : 10 * head + 10] for head in range(6) if head // (6 // heads) == group]
        np.testing.assert_allclose(new[10 * group : 10 * group + 10], np.mean(members, axis=0), rtol=1e-5, atol=1e-6)
    assert report.parameters_after - report.parameters_before == 3 * 2 * (heads - 6) * 10 * 49
    assert report.cache.after == report.cache.before * heads / 6


def test_heads_that_are_equal_lose_nothing_by_pooling_or_repeating():
    grouped = model(num_kv_heads=2)
    each_its_own, report = swap_attention(grouped, softmax(queries_per_kv_head=1))
    assert "k_proj.weight" in report.regrouped
    assert largest(each_its_own, grouped) <= tolerance(mx.float32)
    pooled, _ = swap_attention(each_its_own, softmax(num_kv_heads=2))
    assert largest(pooled, grouped) <= tolerance(mx.float32)


def test_quantized_heads_are_pooled_and_stay_quantized():
    original = model(hidden_size=64)
    # 8 bits, and heads that are equal: what is pooled is what was there.
    for layer in original.layers:
        for name in ("k_proj", "v_proj"):
            part = layer.self_attn[name]
            part.weight = mx.tile(part.weight[:10], (6, 1))
            part.bias = mx.tile(part.bias[:10], 6)
    nn.quantize(original, group_size=32, bits=8, class_predicate=lambda name, _: name[-6:] in ("k_proj", "v_proj"))
    swapped, report = swap_attention(original, softmax(num_kv_heads=3))
    assert isinstance(swapped.layers[0].self_attn.k_proj, nn.QuantizedLinear)
    assert {"k_proj.scales", "v_proj.weight"} <= set(report.regrouped)
    assert largest(swapped, original) <= 0.02 * mx.abs(original(TOKENS)).max().item()


def test_heads_that_cannot_be_regrouped_are_named():
    with pytest.raises(UserError, match="must divide, or be a multiple of, the 3 that the checkpoint has; got 2"):
        swap_attention(model(num_kv_heads=3), softmax(num_kv_heads=2))


def test_adapters_stay_where_they_are_and_are_never_pooled():
    original = model()
    adapters = Adapters(kind="lora", lora=LoRAConfig(rank=2), base="here", base_fingerprint="0")
    attach_adapters(original, adapters)
    original.layers[0].self_attn.q_proj.lora_b = mx.ones((2, 60))
    swapped, _ = swap_attention(original, variant("mha_tiled"))
    assert largest(swapped, original) <= tolerance(mx.float32)
    with pytest.raises(UserError, match="only without adapters"):
        swap_attention(original, softmax(num_kv_heads=1))


def test_what_was_learned_stays_with_its_mechanism():
    original = model(variant("gated_delta"))
    swapped, report = swap_attention(original, variant("gated_delta_chunked"))
    assert not report.new
    assert not report.begins
    # Three layers of it, and logits of about 10.
    assert largest(swapped, original) <= 10 * tolerance(mx.float32)


def test_learned_sinks_hardly_disturb_a_trained_model():
    original = model()
    swapped, report = swap_attention(original, variant("learned_sinks"))
    assert report.begins == {"learned_sinks": "with sinks of -10, which get next to no weight"}
    assert 0 < largest(swapped, original) <= 1e-3 * mx.abs(original(TOKENS)).max().item()


def test_gated_delta_begins_with_convolutions_that_mix_no_tokens():
    swapped, report = swap_attention(model(), variant("gated_delta"))
    layer = swapped.layers[1].self_attn
    x_BLC = mx.random.normal((2, 5, layer.k_conv.weight.shape[0]), key=mx.random.key(1))
    y_BLC, _ = layer.k_conv(x_BLC, tail_BPC=None, segments_BL=None)
    assert mx.allclose(y_BLC, nn.silu(x_BLC), atol=tolerance(mx.float32)).item()
    assert report.begins["gated_delta"].startswith("with convolutions that pass on the token itself")


def test_the_report_is_told_in_words():
    _, report = swap_attention(model(), variant("gated_delta"), layers=[0, 2])
    text = "\n".join(report.lines())
    for part in ("gated_delta in 2 of 3 layers: 0, 2", "new: A_log (2 layers)", "dropped: k_norm.weight (2 layers)"):
        assert part in text
    assert report.as_mapping()["layers"] == [0, 2]
