"""Which function an attention computes, whatever computes it: only what computes one is compared on speed alone."""

import json
from collections.abc import Mapping
from typing import Any

from zoo.attention.mechanism import GROUPING, resolved_kv_heads
from zoo.attention.registry import mechanism
from zoo.attention.variant import LayerPattern, VariantConfig, variant_from_mapping
from zoo.config import UserError, to_mapping


def function_of(mapping: Mapping[str, Any], *, num_heads: int | None = None, num_kv_heads: int | None = None) -> str:
    """Names the function: of equal names, equal weights give equal values.

    Args:
        mapping: As `variant_from_mapping` takes it. What is none here, for it was written elsewhere, is taken as it is.
        num_heads: The model's, if they are known. Otherwise variants of equal settings of heads alone are equal.
        num_kv_heads: The model's own grouping; None: as `num_heads`.
    """
    try:
        attention = variant_from_mapping({**mapping, "name": "any"})
    except UserError:
        no_matter = ("name", "implementation")
        kept = {key: value for key, value in mapping.items() if value is not None and key not in no_matter}
        return json.dumps(kept, sort_keys=True)
    layers = attention.layer_pattern if isinstance(attention, LayerPattern) else (attention,)
    heads = None if num_heads is None else (num_heads, num_kv_heads or num_heads)
    return json.dumps([_of_layer(layer, heads) for layer in layers], sort_keys=True)


def _of_layer(layer: VariantConfig, heads: tuple[int, int] | None) -> tuple[Any, ...]:
    exact_class = layer.capabilities.exact_class
    declared, parameters = mechanism(layer.mechanism), layer.parameters
    if declared.stands_for is not None:
        declared, parameters = declared.stands_for(parameters)
    kept = {key: value for key, value in to_mapping(parameters).items() if key not in declared.tuning}
    grouping = {key: kept.pop(key, None) for key in GROUPING}
    if heads is None:
        return exact_class, kept, grouping
    return exact_class, kept, resolved_kv_heads(grouping, num_heads=heads[0], num_kv_heads=heads[1])
