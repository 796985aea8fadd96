"""An attention is called by its YAML's name, and by what was changed."""

import json

import pytest

from zoo.attention import variant_from_mapping
from zoo.attention.catalog import attention_json, attention_names, series_name, variant, variant_mapping


@pytest.mark.parametrize("name", attention_names())
def test_an_unchanged_variant_has_its_own_name(name):
    assert series_name(variant(name)) == name


def test_changed_parameters_stand_in_brackets():
    changed = variant_from_mapping({**variant_mapping("swa"), "window_size": 7})
    assert series_name(changed) == "swa(window_size=7)"
    heads = variant_from_mapping({**variant_mapping("gqa"), "queries_per_kv_head": None, "num_kv_heads": 3})
    assert series_name(heads) == "gqa(num_kv_heads=3)"


def test_a_changed_hybrid_says_its_layers():
    mapping = variant_mapping("hybrid_swa")
    layers = [{**variant_mapping("swa"), "window_size": 7}, variant_mapping("mha")]
    assert series_name(variant_from_mapping({**mapping, "layer_pattern": layers})) == (
        "hybrid_swa(layer_pattern=swa(window_size=7)+mha)"
    )


CHANGED = [
    {**variant_mapping("swa"), "window_size": 7},
    {**variant_mapping("gqa"), "queries_per_kv_head": None, "num_kv_heads": 3},
    {"name": "hybrid_swa", "layer_pattern": [{**variant_mapping("swa"), "window_size": 7}, variant_mapping("mha")]},
    {"name": "of another package", "mechanism": "softmax"},
]


@pytest.mark.parametrize("mapping", [*map(variant_mapping, attention_names()), *CHANGED], ids=str)
def test_the_mapping_in_a_row_builds_the_same_attention(mapping):
    attention = variant_from_mapping(mapping)
    assert variant_from_mapping(json.loads(attention_json(attention))) == attention


@pytest.mark.parametrize("name", attention_names())
def test_an_unchanged_variant_has_the_mapping_that_rows_of_speed_have(name):
    assert json.loads(attention_json(variant(name))) == variant_mapping(name)
