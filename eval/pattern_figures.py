"""A picture of each pattern: which keys (columns) each query (row) may see, causal and bidirectional.

The pictures are the patterns themselves, evaluated; nothing is drawn by hand.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from zoo.attention import VariantConfig, mechanism
from zoo.attention.catalog import attention_names, variant
from zoo.attention.function import function_of
from zoo.attention.mechanism import GROUPING
from zoo.ops.patterns import BoundPattern, Pattern, everything, numpy_mask

# Enough for two blocks of 32 and two windows of 64 to be told apart.
LENGTH = 160
SEEN, HIDDEN = "#2b6cb0", "#edf2f7"


def pattern_variants() -> dict[str, VariantConfig]:
    """One shipped variant of each softmax pattern with its parameters, by variant name."""
    found: dict[str, VariantConfig] = {}
    for chosen in map(variant, attention_names()):
        if not isinstance(chosen, VariantConfig):
            continue
        is_pattern = chosen.mechanism == "softmax" or mechanism(chosen.mechanism).pattern is not None
        # To regroup heads changes no pattern, and has no picture of its own.
        regroups_heads = any(chosen.as_mapping().get(key) is not None for key in GROUPING)
        if is_pattern and not regroups_heads:
            found.setdefault(function_of(chosen.as_mapping()), chosen)
    return {chosen.name: chosen for chosen in found.values()}


def draw_patterns(folder: Path) -> list[Path]:
    """Writes `<variant>.svg` for each pattern into a folder, made if missing; the same patterns give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(chosen, folder / f"{name}.svg") for name, chosen in sorted(pattern_variants().items())]


def _draw(chosen: VariantConfig, path: Path) -> Path:
    declared = mechanism(chosen.mechanism)
    pattern: Pattern = everything if declared.pattern is None else BoundPattern(declared.pattern, chosen.parameters)
    able = chosen.capabilities
    directions = [("causal", True)] * able.causal + [("bidirectional", False)] * able.bidirectional
    # A fixed salt makes matplotlib's element ids, and so the file, reproducible.
    with mpl.rc_context({"svg.hashsalt": chosen.name, "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(3.2 * len(directions), 3.6), layout="constrained")
        panels = figure.subplots(1, len(directions), squeeze=False)[0]
        for axes, (title, causal) in zip(panels, directions, strict=True):
            seen = numpy_mask(pattern, causal=causal, query_length=LENGTH, key_length=LENGTH)
            axes.imshow(seen, cmap=mpl.colors.ListedColormap([HIDDEN, SEEN]), vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"{title}: {np.count_nonzero(seen) / seen.size:.0%} of pairs")
            axes.set_xlabel("key")
            axes.set_ylabel("query")
        figure.suptitle(chosen.name)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
