"""A trained attention is called by its YAML's name, and by what was changed."""

import json

import pytest

from eval.quality.series import attention_json, series_name
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import attention_names, variant, variant_mapping


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


@pytest.mark.parametrize("name", ["swa", "hybrid_swa"])
def test_the_mapping_in_a_row_builds_the_same_attention(name):
    assert variant_from_mapping(json.loads(attention_json(variant(name)))) == variant(name)
