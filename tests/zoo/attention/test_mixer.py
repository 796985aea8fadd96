"""What a layer, its mixer and a mechanism say of each other."""

from typing import Any

import mlx.core as mx
import pytest

from tests.zoo.attention.cases import CAUSAL, layer_shape
from zoo.attention import Attention, mechanism
from zoo.attention.mechanism import HeadGrouping, resolved_kv_heads
from zoo.attention.pattern import pattern_mechanism
from zoo.config import UserError
from zoo.ops.masks import MaskSpec
from zoo.ops.scores import ScoreHook

SETTING: dict[str, Any] = {"positions": "rotary", "qk_norm": True, "qkv_bias": True, "num_kv_heads": 2}
MIXED = [case for case in CAUSAL if case.mechanism.mixer is not None]
MASK = MaskSpec(causal=True)


@pytest.mark.parametrize("name", ["q_proj", "rope", "q_norm", "mixer", "shape", "_hidden", "two words"])
def test_nothing_is_learned_under_a_name_that_the_layer_needs(name: str) -> None:
    hook = ScoreHook(score=lambda scores, *_: scores, learned=lambda config, num_heads: {name: mx.zeros(num_heads)})
    declared = pattern_mechanism(name="learning", allowed=None, hook=hook)
    with pytest.raises(UserError, match="learned must give names that a layer can take"):
        declared.make_layer(declared.config(), "masked", layer_shape(causal=True, **SETTING))


def test_a_mechanism_has_a_mixer_or_a_layer_of_its_own() -> None:
    plain, own = mechanism("softmax"), mechanism("gated_delta")
    assert own.build is not None
    for changes in ({"mixer": None}, {"build": own.build}):
        with pytest.raises(UserError, match="either `mixer` or `build`"):
            plain.__class__(**{**vars(plain), **changes})


@pytest.mark.parametrize(("grouping", "expected"), [({}, 2), ({"num_kv_heads": 4}, 4), ({"queries_per_kv_head": 8}, 1)])
def test_key_value_heads_are_the_variants_or_else_the_models(grouping: dict[str, int], expected: int) -> None:
    assert resolved_kv_heads(grouping, num_heads=8, num_kv_heads=2) == expected
    assert resolved_kv_heads(grouping, num_heads=8, num_kv_heads=None) == (expected if grouping else None)
    shape = layer_shape(causal=True, num_heads=8, num_kv_heads=2)
    assert HeadGrouping(**grouping).resolve(shape) == expected
    layer = mechanism("softmax").make_layer(mechanism("softmax").config(**grouping), "fused", shape)
    assert layer.k_proj.weight.shape[0] == expected * shape.head_dim


def test_mixing_is_what_the_flops_of_a_layer_hold_beside_its_projections() -> None:
    for name in ("softmax", "linear", "gated_delta"):
        layers: list[Attention] = []
        for hidden_size in (20, 40):
            shape = layer_shape(causal=True, hidden_size=hidden_size)
            declared = mechanism(name)
            layers.append(declared.make_layer(declared.config(), next(iter(declared.implementations)), shape))
        narrow, wide = (layer.flops(query_length=7, key_length=9) for layer in layers)
        assert layers[0].mixing_flops(query_length=7, key_length=9) == 2 * narrow - wide
