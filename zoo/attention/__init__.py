"""Swappable attention: the interface that models see, the registry, and one file per mechanism in `variants/`."""

from zoo.attention.interface import Attention, Cache, Capabilities, LayerShape, Mixer, PositionKind, RotaryConfig
from zoo.attention.registry import mechanism, mechanism_names
from zoo.attention.variant import LayerPattern, VariantConfig, build_attention, variant_from_mapping

__all__ = [
    "Attention",
    "Cache",
    "Capabilities",
    "LayerPattern",
    "LayerShape",
    "Mixer",
    "PositionKind",
    "RotaryConfig",
    "VariantConfig",
    "build_attention",
    "mechanism",
    "mechanism_names",
    "variant_from_mapping",
]
