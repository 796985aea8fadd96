"""Series: one line of a table or figure each, a shipped variant with some of its parameters changed."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.attention import LayerPattern, VariantConfig, mechanism, variant_from_mapping
from zoo.attention.catalog import variant_mapping
from zoo.attention.mechanism import AUTO, GROUPING
from zoo.config import require
from zoo.config.files import parse_yaml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """A variant as rows name it.

    Attributes:
        name: A cell's `variant`: the YAML's name, and the parameters that were given, in brackets.
        mapping: The whole mapping, as `zoo.attention.variant_from_mapping` takes it.
    """

    name: str
    mapping: Mapping[str, Any]

    @property
    def attention(self) -> str:
        """A cell's `attention`."""
        return json.dumps(self.mapping, sort_keys=True)

    @property
    def variant(self) -> VariantConfig | LayerPattern:
        """The variant itself.

        Raises:
            UserError: If the mapping is none.
        """
        return variant_from_mapping(self.mapping)


def series(name: str, /, **parameters: int | float | str) -> Series:
    """A shipped variant, for example `series("swa", window_size=32)`, which is named `swa(window_size=32)`.

    Args:
        name: Of a YAML in configs/attention.
        parameters: Of the variant, in place of the YAML's; even equal ones are named.

    Raises:
        UserError: If there is no such variant, or it has no such parameter.
    """
    mapping = variant_mapping(name)
    for parameter, value in parameters.items():
        # They say the same in two ways; a variant takes at most one of them.
        for rival in GROUPING if parameter in GROUPING else ():
            mapping.pop(rival, None)
        mapping[parameter] = value
    variant_from_mapping(mapping)
    given = ", ".join(f"{parameter}={value}" for parameter, value in parameters.items())
    return Series(name=f"{name}({given})" if given else name, mapping=mapping)


def changed_parameters(text: str) -> dict[str, Any]:
    """What a series' name changes in the variant's YAML; None for a parameter that another one takes the place of.

    Raises:
        UserError: As for `named_parameters`.
    """
    name, parameters = named_parameters(text)
    gone = set(variant_mapping(name)) - set(series(name, **parameters).mapping)
    return {**dict.fromkeys(sorted(gone)), **parameters}


def named_parameters(text: str) -> tuple[str, dict[str, Any]]:
    """Takes a series' name apart: `swa(window_size=32)` is `swa` with a window of 32.

    Raises:
        UserError: If it is none: no such variant or parameter, or brackets that hold something else.
    """
    name, opening, inside = text.partition("(")
    pairs = [pair.partition("=") for pair in inside.removesuffix(")").split(",")] if opening else []
    well_formed = not opening or (text.endswith(")") and all(key.strip() and value for key, _, value in pairs))
    require(well_formed, "variants", "be names such as swa or swa(window_size=32)", text)
    where = "variants: parameters, as in swa(window_size=32),"
    parameters = {key.strip(): parse_yaml(value, where=where) for key, _, value in pairs}
    series(name, **parameters)
    return name, parameters


def series_named(text: str) -> Series:
    """The series of a name, of which `named_parameters` says more."""
    name, parameters = named_parameters(text)
    return series(name, **parameters)


def published_series(text: str) -> Series:
    """The series of a name, computed by its mechanism's own code at every length.

    Published figures are of one implementation; where the YAML leaves the choice open (`auto`), it is the mechanism's
    first, such as `fused` or `chunked`.

    Raises:
        UserError: As for `named_parameters`.
    """
    found = series_named(text)
    if found.mapping.get("implementation") != AUTO:
        return found
    first = next(iter(mechanism(found.mapping["mechanism"]).implementations))
    return dataclasses.replace(found, mapping={**found.mapping, "implementation": first})


def chosen_series(
    variants: Mapping[str, Mapping[str, Any]] | None,
    default: Iterable[str],
    *,
    by_default: Callable[[str], Series] = series,
) -> list[Series]:
    """The variants that a user named, under their own names and in their order; or, of None, the default ones.

    Args:
        variants: Name -> mapping, or None.
        default: Names, of which `by_default` makes series.
        by_default: As said.

    Raises:
        UserError: If the user named none at all.
    """
    if variants is None:
        return [by_default(name) for name in default]
    require(bool(variants), "variants", "name at least one", [])
    return [Series(name=name, mapping=mapping) for name, mapping in variants.items()]
