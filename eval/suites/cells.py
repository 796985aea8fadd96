"""Cells of a group, which differ in their series only, and what they need to know of a shipped model."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from eval.rows import Cell
from eval.rows.cell import Mode
from eval.suites.series import Series
from zoo.attention import VariantConfig, variant_from_mapping
from zoo.attention.calibration import Phase
from zoo.attention.mechanism import AUTO
from zoo.models.catalog import model_names, shipped_model

PHASES: Mapping[Mode, Phase] = {
    "forward": "forward",
    "prefill": "forward",
    "forward_backward": "training",
    "step": "training",
    "decode": "decode",
}


def cells_of(series: Iterable[Series], **fields: Any) -> tuple[Cell, ...]:
    """One cell for each series, with the implementation that computes it; the first is the baseline.

    Args:
        series: In order.
        fields: All other fields of the cells; the builder is named as the level unless it is given.
    """
    return tuple(
        _computed(
            Cell(
                **{
                    "builder": fields["level"],
                    **fields,
                    "variant": each.name,
                    "attention": each.attention,
                    "role": "candidate" if index else "baseline",
                }
            )
        )
        for index, each in enumerate(series)
    )


def _computed(cell: Cell) -> Cell:
    """The cell with what `auto` chooses for it, so that its row says what was timed."""
    mapping = cell.attention_mapping
    layers = mapping.get("layer_pattern")
    if layers is not None:
        mapping["layer_pattern"] = [_implemented(each, cell) for each in layers]
    return cell.model_copy(update={"attention": json.dumps(_implemented(mapping, cell), sort_keys=True)})


def _implemented(mapping: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    if mapping.get("implementation") != AUTO:
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


def layer_detail(name: str) -> str:
    """The detail of a cell of level layer that stands for one of a shipped model's layers; errors as above."""
    return f"positions={shipped_model(name)['positions']}"


def num_layers_of(name: str | None) -> int | None:
    """Transformer blocks of a shipped model; None for any other."""
    return int(shipped_model(name)["num_layers"]) if name in model_names() else None
