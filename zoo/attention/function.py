"""Which function an attention computes, whatever computes it: only what computes one is compared on speed alone."""

import json
from collections.abc import Mapping
from typing import Any

from zoo.attention.mechanism import GROUPING, Mechanism, resolved_kv_heads
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
    declared, parameters = meaning_of(layer)
    kept = {key: value for key, value in to_mapping(parameters).items() if key not in declared.tuning}
    grouping = {key: kept.pop(key, None) for key in GROUPING}
    if heads is None:
        return exact_class, kept, grouping
    return exact_class, kept, resolved_kv_heads(grouping, num_heads=heads[0], num_kv_heads=heads[1])


def meaning_of(layer: VariantConfig) -> tuple[Mechanism, Any]:
    """The mechanism that a variant computes and its parameters, whatever chooses among implementations."""
    declared = mechanism(layer.mechanism)
    return (declared, layer.parameters) if declared.stands_for is None else declared.stands_for(layer.parameters)


def stock_layers(
    attention: VariantConfig | LayerPattern, *, num_layers: int, num_heads: int, num_kv_heads: int
) -> tuple[int, tuple[int | None, ...]] | None:
    """What other libraries can say of a model's attention, if that is all there is to it.

    Args:
        attention: Of the model.
        num_layers: The model's.
        num_heads: The model's.
        num_kv_heads: The model's own grouping.

    Returns:
        Key/value heads of every layer, and the window of each, None for full attention. None if a layer is neither full
        nor windowed, or layers differ in their heads.
    """
    heads, windows = set(), []
    for declared, parameters in (meaning_of(attention.layer(index)) for index in range(num_layers)):
        if declared.name not in ("softmax", "sliding_window"):
            return None
        heads.add(resolved_kv_heads(vars(parameters), num_heads=num_heads, num_kv_heads=num_kv_heads))
        windows.append(parameters.window_size if declared.name == "sliding_window" else None)
    return (heads.pop(), tuple(windows)) if len(heads) == 1 else None
