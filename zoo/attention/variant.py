"""A variant: mechanism + implementation + parameters, as a YAML in `configs/attention/` names them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo.attention.calibration import Phase
from zoo.attention.choice import chosen_implementation
from zoo.attention.interface import Attention, Capabilities, LayerShape
from zoo.attention.mechanism import AUTO
from zoo.attention.registry import mechanism
from zoo.config import UserError, from_mapping, to_mapping
from zoo.config.errors import SHOWN, shortened


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """One named choice of attention.

    Attributes:
        name: Name of the YAML, used in tables.
        mechanism: Registry name of the mathematics.
        implementation: How it is computed.
        parameters: The mechanism's own config.
    """

    name: str
    mechanism: str
    implementation: str
    parameters: Any

    @property
    def capabilities(self) -> Capabilities:
        """What this variant can do."""
        return mechanism(self.mechanism).capabilities(self.parameters, self.implementation)

    def shape_in(self, shape: LayerShape) -> LayerShape:
        """The shape of its layers in a model of this shape, as `Mechanism.shape_in`."""
        return mechanism(self.mechanism).shape_in(self.parameters, self.implementation, shape)

    def computed_here(self) -> "VariantConfig":
        """The same function, by the default implementation where this machine lacks what its own needs."""
        here = mechanism(self.mechanism).implementations_here()
        computable = self.implementation in (AUTO, *here)
        return self if computable else dataclasses.replace(self, implementation=here[0])

    def resolved(self, *, phase: Phase, rows: int, length: int, causal: bool) -> "VariantConfig":
        """The same function by the implementation that computes a call: `auto` is replaced by what it chooses here.

        Args:
            phase: Which call.
            rows: Batch size times query heads.
            length: L, or the tokens in the cache.
            causal: Whether the future is hidden.
        """
        if self.implementation != AUTO:
            return self
        declared = mechanism(self.mechanism)
        chosen = chosen_implementation(declared, self.parameters, phase=phase, rows=rows, length=length, causal=causal)
        return dataclasses.replace(self, implementation=chosen)

    def layer(self, index: int) -> "VariantConfig":
        """The variant of layer `index`: this one."""
        return self

    def variants(self) -> tuple["VariantConfig", ...]:
        """The distinct variants in use."""
        return (self,)

    def as_mapping(self) -> dict[str, Any]:
        """Plain mapping from which `variant_from_mapping` makes an equal variant."""
        head = {"name": self.name, "mechanism": self.mechanism, "implementation": self.implementation}
        return {**head, **to_mapping(self.parameters)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerPattern:
    """A hybrid: layer i uses variant i modulo the pattern's length."""

    name: str
    layer_pattern: tuple[VariantConfig, ...]

    def computed_here(self) -> "LayerPattern":
        """The same function, as `VariantConfig.computed_here`."""
        return dataclasses.replace(self, layer_pattern=tuple(each.computed_here() for each in self.layer_pattern))

    def resolved(self, *, phase: Phase, rows: int, length: int, causal: bool) -> "LayerPattern":
        """The same function, as `VariantConfig.resolved`."""
        layers = [each.resolved(phase=phase, rows=rows, length=length, causal=causal) for each in self.layer_pattern]
        return dataclasses.replace(self, layer_pattern=tuple(layers))

    def layer(self, index: int) -> VariantConfig:
        """The variant of layer `index`, counted from 0."""
        return self.layer_pattern[index % len(self.layer_pattern)]

    def variants(self) -> tuple[VariantConfig, ...]:
        """The distinct variants in use."""
        distinct: list[VariantConfig] = []
        for variant in self.layer_pattern:
            if variant not in distinct:
                distinct.append(variant)
        return tuple(distinct)

    def as_mapping(self) -> dict[str, Any]:
        """Plain mapping from which `variant_from_mapping` makes an equal hybrid."""
        return {"name": self.name, "layer_pattern": [variant.as_mapping() for variant in self.layer_pattern]}


def variant_from_mapping(mapping: Mapping[str, Any], *, path: str = "attention") -> VariantConfig | LayerPattern:
    """Builds a variant or a hybrid from what a YAML or a checkpoint holds.

    Args:
        mapping: `name` and either `layer_pattern` (a list of such mappings) or `mechanism`, optionally
            `implementation`, and the mechanism's parameters.
        path: Config path for messages.

    Raises:
        UserError: On an unknown mechanism, implementation or parameter.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"{path} must be a mapping; got {shortened(mapping)}")
    rest = dict(mapping)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{path}.name must be a text; got {shortened(name)}")
    # It stands in tables, file names and messages.
    if not name.strip() or not name.isprintable() or len(name) > SHOWN:
        raise UserError(f"{path}.name must be one line of 1 to {SHOWN} characters that print; got {shortened(name)}")
    if "layer_pattern" in rest:
        return _hybrid(name, rest, path)
    if "mechanism" not in rest:
        raise UserError(f"{path}: missing key 'mechanism' (or 'layer_pattern')")
    named = rest.pop("mechanism")
    if not isinstance(named, str):
        raise UserError(f"{path}.mechanism must be a text; got {shortened(named)}")
    declared = mechanism(named)
    implementation = rest.pop("implementation", None)
    if implementation is None:
        implementation = next(iter(declared.implementations))
    if not isinstance(implementation, str) or implementation not in declared.implementations:
        choices = ", ".join(declared.implementations)
        got = f"got {shortened(implementation)} (choices: {choices})"
        raise UserError(f"{path}.implementation must be one of {declared.name}'s; {got}")
    parameters = from_mapping(declared.config, rest, path=path)
    return VariantConfig(name=name, mechanism=declared.name, implementation=implementation, parameters=parameters)


def _hybrid(name: str, rest: dict[str, Any], path: str) -> LayerPattern:
    layers = rest.pop("layer_pattern")
    if rest:
        raise UserError(f"{path}: a hybrid has only 'name' and 'layer_pattern'; got also {shortened(list(rest))}")
    if not isinstance(layers, list | tuple) or not layers:
        raise UserError(f"{path}.layer_pattern must be a non-empty list of variants; got {shortened(layers)}")
    variants = []
    for index, layer in enumerate(layers):
        if not isinstance(layer, Mapping):
            raise UserError(f"{path}.layer_pattern[{index}] must be a variant; got {shortened(layer)}")
        # Before it is read, since a hybrid may hold itself.
        if "layer_pattern" in layer:
            got = shortened(layer.get("name"))
            raise UserError(f"{path}.layer_pattern[{index}] must not be a hybrid itself; got {got}")
        variant = variant_from_mapping(layer, path=f"{path}.layer_pattern[{index}]")
        assert isinstance(variant, VariantConfig)
        variants.append(variant)
    return LayerPattern(name=name, layer_pattern=tuple(variants))


def build_attention(variant: VariantConfig | LayerPattern, shape: LayerShape, layer_index: int) -> Attention:
    """Makes the attention layer number `layer_index` (from 0) of a model.

    Raises:
        UserError: If the mechanism does not support what the model needs.
    """
    chosen = variant.layer(layer_index)
    return mechanism(chosen.mechanism).make_layer(chosen.parameters, chosen.implementation, shape)
