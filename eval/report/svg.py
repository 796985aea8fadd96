"""Figures as SVG: equal bytes for equal rows, text in the page's own colour, ids that no other figure has."""

import io
import re
import warnings

import matplotlib as mpl
from matplotlib.figure import Figure

from eval.report.figures.style import INK

# A file of its own has no page around it whose colour it could take.
_OWN_COLOURS = (
    "<style>:root { color: #1f2328; background: transparent } "
    "@media (prefers-color-scheme: dark) { :root { color: #e6edf3 } }</style>"
)
_POINTS = re.compile(r'width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')


def svg_text(figure: Figure, name: str) -> str:
    """The figure as SVG without colours of its own for text and axes, and without metadata.

    Args:
        figure: To draw.
        name: Of the figure; begins the ids in it.
    """
    file = io.StringIO()
    # Without a date, and with ids that depend on the content and this name only.
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with (
        mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False}),
        warnings.catch_warnings(),
    ):
        # The text stays text: the reader's own fonts have the characters that ours has not.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        # A figure of more than its place can hold is crowded, and still there.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(file, format="svg", metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return re.sub(r"font: ([^;]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, 'DejaVu Sans', sans-serif", text)


def standalone(svg: str) -> str:
    """The SVG as a file that is light on dark where its reader prefers that."""
    head, _, body = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>\n {_OWN_COLOURS}{body}'


def inline(svg: str, title: str) -> str:
    """The SVG as a part of a page: as wide as its column, yet never too small to read."""
    found = _POINTS.search(svg)
    assert found is not None, "matplotlib writes width and height in points"
    width = float(found["width"])
    # In pixels, text of nine points stays between eight and a half and thirteen of them.
    limits = f"width:100%;min-width:{0.95 * width:.0f}px;max-width:{1.45 * width:.0f}px"
    described = f'role="img" aria-label="{title}" style="{limits}"'
    return svg.replace(found[0], described, 1)
