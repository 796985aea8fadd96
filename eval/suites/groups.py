"""Groups of cells that differ in their series only."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from eval.rows import Cell
from eval.rows.cell import Mode
from eval.suites.series import Series
from zoo.attention import VariantConfig, variant_from_mapping
from zoo.attention.calibration import Phase
from zoo.attention.mechanism import AUTO

PHASES: Mapping[Mode, Phase] = {
    "forward": "forward",
    "prefill": "forward",
    "forward_backward": "training",
    "step": "training",
    "decode": "decode",
}


def cells_of(series: Iterable[Series], setting: Mapping[str, Any]) -> tuple[Cell, ...]:
    """One cell for each series, with the implementation that computes it; the first is the baseline.

    Args:
        series: In order.
        setting: All other fields of the cells.
    """
    return tuple(
        _computed(
            Cell.model_validate(
                {
                    **setting,
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
