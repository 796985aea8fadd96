"""How a trained attention is called in tables: its YAML's name, with changed parameters in brackets."""

import json
from typing import Any

from zoo.attention import LayerPattern, VariantConfig
from zoo.attention.catalog import attention_names, variant, variant_mapping


def series_name(attention: VariantConfig | LayerPattern) -> str:
    """For example `swa`, or `swa(window_size=32)` where the YAML has another window."""
    if attention.name not in attention_names() or attention == (shipped := variant(attention.name)):
        return attention.name
    if isinstance(attention, LayerPattern):
        changed = {"layer_pattern": "+".join(series_name(layer) for layer in attention.layer_pattern)}
    else:
        changed = _changed(attention.as_mapping(), shipped.as_mapping())
    inside = ", ".join(f"{key}={value}" for key, value in changed.items() if value is not None)
    return f"{attention.name}({inside})"


def attention_json(attention: VariantConfig | LayerPattern) -> str:
    """The whole mapping, as rows hold it: the YAML's keys, and those that were changed."""
    return json.dumps(_as_written(attention), sort_keys=True)


def _as_written(attention: VariantConfig | LayerPattern) -> dict[str, Any]:
    whole = attention.as_mapping()
    if attention.name not in attention_names():
        return whole
    if attention == (shipped := variant(attention.name)):
        return variant_mapping(attention.name)
    if isinstance(attention, LayerPattern):
        return {"name": attention.name, "layer_pattern": [_as_written(layer) for layer in attention.layer_pattern]}
    kept = {*variant_mapping(attention.name), *_changed(whole, shipped.as_mapping())}
    return {key: value for key, value in whole.items() if key in kept and value is not None}


def _changed(mapping: dict[str, Any], shipped: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if shipped.get(key) != value}
