"""Heat maps whose cells say their value, or why they have none."""

import dataclasses
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from eval.report.figures.style import INK

# Diverging: slower, equal, faster. Blue against orange, which every colour vision tells apart.
DIVERGING = LinearSegmentedColormap.from_list("slower_faster", ["#b5530a", "#f2c9a1", "#eef0f2", "#a9c9ee", "#1f5fae"])
SEQUENTIAL = LinearSegmentedColormap.from_list("share", ["#eef0f2", "#8fc7c9", "#12737d"])
_LIGHT, _DARK = "#ffffff", "#101418"
# Rec. 709 luminance above which dark text reads better.
_MIDDLE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One cell.

    Attributes:
        value: What its colour says; None for no value.
        text: What it says in words.
    """

    value: float | None
    text: str


def draw_heat(
    axes: Axes,
    cells: Mapping[tuple[str, str], HeatCell],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    colours: Colormap,
    scale: Normalize,
) -> None:
    """Draws the cells; those without a value keep the page's ground, with their text in the page's colour."""
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            cell = cells.get((row, column))
            if cell is None:
                continue
            fill = None if cell.value is None else colours(scale(cell.value))
            patch = Rectangle((x, y), 1, 1, facecolor=fill or "none", edgecolor=INK, linewidth=0.3)
            axes.add_patch(patch)
            colour = INK if fill is None else (_DARK if _luminance(fill) > _MIDDLE else _LIGHT)
            axes.text(x + 0.5, y + 0.5, cell.text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_scale(
    panels: Sequence[Axes], colours: Colormap, scale: Normalize, ticks: Mapping[float, str], label: str
) -> None:
    """A key to the colours, beside the panels."""
    # From fifty colours on, matplotlib would make the key a bitmap.
    shown = mpl.cm.ScalarMappable(norm=scale, cmap=colours.resampled(48))
    figure = panels[0].get_figure(root=True)
    assert figure is not None, "panels belong to a figure"
    bar = figure.colorbar(shown, ax=list(panels), shrink=0.6, aspect=30, pad=0.02)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.minorticks_off()
    # Without an edge of its own, each colour would be set off from the next by a hairline.
    assert bar.solids is not None, "a key of colours has its patches"
    bar.solids.set_edgecolor("face")
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)


def _luminance(colour: Sequence[float]) -> float:
    red, green, blue = colour[:3]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
