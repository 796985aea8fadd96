"""The variants that there are: one YAML each in `configs/attention/`, and one per mechanism of other packages."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from zoo.attention.registry import SHIPPED_VARIANTS, external_mechanism_names, left_out_names
from zoo.attention.variant import LayerPattern, VariantConfig, variant_from_mapping
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import read_yaml_mapping


@functools.cache
def attention_names() -> tuple[str, ...]:
    """Names that `attention=` accepts, sorted."""
    return tuple(sorted(_shipped_names() | set(external_mechanism_names())))


def variant_mapping(name: str) -> dict[str, Any]:
    """The plain mapping of a shipped variant, its name included and the layers of a hybrid expanded.

    Raises:
        UserError: If there is no such variant; lists those there are.
    """
    return expand(_mapping(name, "attention"))


def expand(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the variant names in a hybrid's `layer_pattern` by those variants' mappings.

    Raises:
        UserError: If there is no variant of one of these names.
    """
    result = dict(mapping)
    layers = result.get("layer_pattern")
    if isinstance(layers, list | tuple):
        # Not further: a hybrid within a hybrid is refused, and could name itself.
        result["layer_pattern"] = [
            _mapping(layer, f"attention.layer_pattern[{index}]") if isinstance(layer, str) else layer
            for index, layer in enumerate(layers)
        ]
    return result


def _mapping(name: str, field: str) -> dict[str, Any]:
    """What the YAML of a variant says, as it stands there."""
    # Looked up and not opened: a name may lead to another folder, or be none that a file can have.
    if name in _shipped_names():
        path = SHIPPED_VARIANTS / f"{name}.yaml"
        return {"name": name, **read_yaml_mapping(path, what="attention")}
    if name in external_mechanism_names() or name in left_out_names():
        return {"name": name, "mechanism": name}
    raise UserError(f"{field} must be a variant; got {shortened(name)} (choices: {', '.join(attention_names())})")


def _shipped_names() -> set[str]:
    return {path.stem for path in SHIPPED_VARIANTS.glob("*.yaml")}


def variant(name: str) -> VariantConfig | LayerPattern:
    """The shipped variant of this name.

    Raises:
        UserError: If there is none.
    """
    return variant_from_mapping(variant_mapping(name))


def series_name(attention: VariantConfig | LayerPattern) -> str:
    """What tables call an attention: `swa`, or `swa(window_size=32)` where the YAML has another window."""
    if attention.name not in attention_names() or attention == (shipped := variant(attention.name)):
        return attention.name
    if isinstance(attention, LayerPattern):
        changed = {"layer_pattern": "+".join(series_name(layer) for layer in attention.layer_pattern)}
    else:
        changed = _changed(attention.as_mapping(), shipped.as_mapping())
    inside = ", ".join(f"{key}={value}" for key, value in changed.items() if value is not None)
    return f"{attention.name}({inside})"


def attention_json(attention: VariantConfig | LayerPattern) -> str:
    """The whole mapping as JSON, as rows hold it: the YAML's keys, and those that were changed."""
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
