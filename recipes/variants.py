"""Lists every attention variant: its mechanism, its implementation and what it can do."""

import dataclasses
import sys
from typing import Any

from omegaconf import DictConfig

from zoo.attention import LayerPattern
from zoo.attention.catalog import attention_names, variant
from zoo.config import UserError, from_mapping
from zoo.config.files import typed_path

_FLAGS = ("causal", "bidirectional", "decode", "bounded_cache")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantsRecipe:
    """`configs/variants.yaml`, composed.

    Attributes:
        pictures: Folder for a picture of each pattern, or None for none.
    """

    pictures: str | None = None


def main(config: DictConfig) -> dict[str, Any]:
    """Prints a table on stderr, and draws the patterns if asked to.

    Returns:
        `variants`: one object each with name, mechanism, implementation and capabilities. A hybrid's mechanism and
        implementation are those of its layers, joined by "+"; its capabilities are what all its layers have.
        `pictures`: the files drawn.

    Raises:
        UserError: If the pictures cannot be written.
    """
    recipe = from_mapping(VariantsRecipe, dict(config), path="variants")
    rows = [_row(name) for name in attention_names()]
    columns = ("name", "mechanism", "implementation")
    widths = [max(len(str(row[column])) for row in rows) for column in columns]
    for row in rows:
        cells = [str(row[column]).ljust(width) for column, width in zip(columns, widths, strict=True)]
        able = [flag for flag in _FLAGS if row["capabilities"][flag]]
        print("  ".join([*cells, ", ".join(able)]), file=sys.stderr)
    return {"variants": rows, "pictures": _draw(recipe.pictures)}


def _draw(folder: str | None) -> list[str]:
    if folder is None:
        return []
    # It imports matplotlib.
    from eval.pattern_figures import draw_patterns

    try:
        return [str(path) for path in draw_patterns(typed_path(folder, what="pictures"))]
    except OSError as error:
        raise UserError(f"pictures must be a folder that can be written; got {folder!r} ({error.strerror})") from None


def _row(name: str) -> dict[str, Any]:
    chosen = variant(name)
    parts = chosen.variants()
    capabilities = [dataclasses.asdict(part.capabilities) for part in parts]
    common = {key: _common([each[key] for each in capabilities]) for key in capabilities[0]}
    if isinstance(chosen, LayerPattern):
        # One unbounded layer makes the whole model's cache grow, and two functions are no one function.
        common["exact_class"] = "+".join(each["exact_class"] for each in capabilities)
    return {
        "name": name,
        "mechanism": "+".join(dict.fromkeys(part.mechanism for part in parts)),
        "implementation": "+".join(dict.fromkeys(part.implementation for part in parts)),
        "capabilities": common,
    }


def _common(values: list[Any]) -> Any:
    if isinstance(values[0], bool):
        return all(values)
    return next((value for value in values if value), "")
