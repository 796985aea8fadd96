"""How a trained attention is called in tables: its YAML's name, with changed parameters in brackets."""

import json

from zoo.attention import LayerPattern, VariantConfig
from zoo.attention.catalog import attention_names, variant


def series_name(attention: VariantConfig | LayerPattern) -> str:
    """For example `swa`, or `swa(window_size=32)` where the YAML has another window."""
    if attention.name not in attention_names():
        return attention.name
    shipped = variant(attention.name).as_mapping()
    changed = {key: value for key, value in attention.as_mapping().items() if value not in (None, shipped.get(key))}
    if "layer_pattern" in changed:
        assert isinstance(attention, LayerPattern)
        changed = {"layer_pattern": "+".join(series_name(layer) for layer in attention.layer_pattern)}
    inside = ", ".join(f"{key}={value}" for key, value in changed.items())
    return f"{attention.name}({inside})" if inside else attention.name


def attention_json(attention: VariantConfig | LayerPattern) -> str:
    """The whole mapping, as rows hold it."""
    return json.dumps(attention.as_mapping(), sort_keys=True)
