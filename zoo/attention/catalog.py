"""The variants that there are: one YAML each in `configs/attention/`, and one per mechanism of other packages."""

import functools
from collections.abc import Mapping
from typing import Any

import yaml

from zoo.attention.registry import SHIPPED_VARIANTS, external_mechanism_names, left_out_names
from zoo.attention.variant import LayerPattern, VariantConfig, variant_from_mapping
from zoo.config import UserError


@functools.cache
def attention_names() -> tuple[str, ...]:
    """Names that `attention=` accepts, sorted."""
    return tuple(sorted({path.stem for path in SHIPPED_VARIANTS.glob("*.yaml")} | set(external_mechanism_names())))


def variant_mapping(name: str) -> dict[str, Any]:
    """The plain mapping of a shipped variant, its name included and the layers of a hybrid expanded.

    Raises:
        UserError: If there is no such variant; lists those there are.
    """
    path = SHIPPED_VARIANTS / f"{name}.yaml"
    if path.is_file():
        return expand({"name": name, **yaml.safe_load(path.read_text(encoding="utf-8"))})
    if name in external_mechanism_names() or name in left_out_names():
        return {"name": name, "mechanism": name}
    raise UserError(f"attention must be a variant; got {name!r} (choices: {', '.join(attention_names())})")


def expand(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the variant names in a hybrid's `layer_pattern` by those variants' mappings."""
    result = dict(mapping)
    layers = result.get("layer_pattern")
    if isinstance(layers, list | tuple):
        result["layer_pattern"] = [variant_mapping(layer) if isinstance(layer, str) else layer for layer in layers]
    return result


def variant(name: str) -> VariantConfig | LayerPattern:
    """The shipped variant of this name.

    Raises:
        UserError: If there is none.
    """
    return variant_from_mapping(variant_mapping(name))
