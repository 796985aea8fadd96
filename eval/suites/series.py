"""Series, one line of a table or figure each: a shipped variant with some of its parameters changed, and its cells."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from eval.rows import Cell
from eval.rows.cell import Mode
from zoo.attention import LayerPattern, VariantConfig, mechanism, variant_from_mapping
from zoo.attention.calibration import Phase
from zoo.attention.catalog import variant_mapping
from zoo.attention.mechanism import AUTO, GROUPING
from zoo.config import require
from zoo.config.files import parse_yaml
from zoo.models.catalog import shipped_model

PHASES: Mapping[Mode, Phase] = {
    "forward": "forward",
    "prefill": "forward",
    "forward_backward": "training",
    "step": "training",
    "decode": "decode",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """A variant as rows name it.

    Attributes:
        name: A cell's `variant`: the YAML's name, and the parameters that were given, in brackets.
        shipped: The YAML's name.
        changes: What was given, even if the YAML says the same; None for a parameter that another one takes the place
            of.
        mapping: The whole mapping, as `zoo.attention.variant_from_mapping` takes it.
    """

    name: str
    shipped: str
    changes: Mapping[str, Any]
    mapping: Mapping[str, Any]

    @property
    def attention(self) -> str:
        """A cell's `attention`."""
        return json.dumps(self.mapping, sort_keys=True)

    @property
    def variant(self) -> VariantConfig | LayerPattern:
        """The variant itself."""
        return variant_from_mapping(self.mapping)


def series_named(name: str) -> Series:
    """The series of a name: `swa(window_size=32)` is the shipped variant `swa` with a window of 32.

    Raises:
        UserError: If there is no such variant, it has no such parameter, or the brackets hold something else.
    """
    shipped, opening, inside = name.partition("(")
    pairs = [pair.partition("=") for pair in inside.removesuffix(")").split(",")] if opening else []
    well_formed = not opening or (name.endswith(")") and all(key.strip() and value for key, _, value in pairs))
    require(well_formed, "variants", "be names such as swa or swa(window_size=32)", name)
    where = "variants: parameters, as in swa(window_size=32),"
    given = {key.strip(): parse_yaml(value, where=where) for key, _, value in pairs}
    mapping = variant_mapping(shipped)
    # They say the same in two ways; a variant takes at most one of them.
    replaced = sorted(set(GROUPING) & set(mapping)) if set(GROUPING) & set(given) else []
    mapping = {**{key: value for key, value in mapping.items() if key not in replaced}, **given}
    variant_from_mapping(mapping)
    return Series(name=name, shipped=shipped, changes={**dict.fromkeys(replaced), **given}, mapping=mapping)


def published_series(name: str) -> Series:
    """The series of a name, computed by its mechanism's own code at every length; errors as of `series_named`.

    Published figures are of one implementation; where the YAML leaves the choice open (`auto`), it is the mechanism's
    first, such as `fused` or `chunked`.
    """
    found = series_named(name)
    if found.mapping.get("implementation") != AUTO:
        return found
    first = next(iter(mechanism(found.mapping["mechanism"]).implementations))
    return dataclasses.replace(found, mapping={**found.mapping, "implementation": first})


def cells_of(series: Iterable[Series], **fields: Any) -> tuple[Cell, ...]:
    """One cell for each series, with the implementation that computes it; the first is the baseline.

    `fields` are all other fields of the cells; the builder is named as the level unless it is given.
    """
    cells = []
    for number, each in enumerate(series):
        own = {"variant": each.name, "role": "candidate" if number else "baseline"}
        cell = Cell(**{"builder": fields["level"], **fields, **own})
        attention = json.dumps(_computed(each.mapping, cell), sort_keys=True)
        cells.append(cell.model_copy(update={"attention": attention}))
    return tuple(cells)


def _computed(mapping: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """The attention with what `auto` chooses for a cell, so that its row says what was timed."""
    if "layer_pattern" in mapping:
        return {**mapping, "layer_pattern": [_computed(each, cell) for each in mapping["layer_pattern"]]}
    if mapping.get("implementation") != AUTO or cell.mode not in PHASES:
        return dict(mapping)
    variant = variant_from_mapping(mapping)
    assert isinstance(variant, VariantConfig)
    rows = cell.batch_size * cell.num_heads
    chosen = variant.resolved(phase=PHASES[cell.mode], rows=rows, length=cell.length, causal=cell.causal)
    return {**mapping, "implementation": chosen.implementation}


def model_fields(name: str) -> dict[str, Any]:
    """The fields of a cell inside a shipped model, or of the model itself.

    Raises:
        UserError: If there is no such model; lists those there are.
    """
    values = shipped_model(name)
    heads = values["num_heads"]
    return {
        "model": name,
        "num_heads": heads,
        "num_kv_heads": values.get("num_kv_heads") or heads,
        "head_dim": values.get("head_dim") or values["hidden_size"] // heads,
        "hidden_size": values["hidden_size"],
        "causal": values["family"] != "bert",
    }
