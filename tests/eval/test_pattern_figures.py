"""The pictures in the guide are the patterns, as they are now."""

import re
from pathlib import Path

from eval.pattern_figures import draw_patterns

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_shipped_pictures_are_drawn_from_the_patterns(tmp_path: Path) -> None:
    drawn = {path.name: path for path in draw_patterns(tmp_path)}
    remedy = "python scripts/variants.py pictures=docs/patterns"
    for shipped in (DOCS / "patterns").iterdir():
        assert shipped.name in drawn, f"{shipped.name} pictures no pattern"
        assert shipped.read_bytes() == drawn[shipped.name].read_bytes(), f"{shipped.name} is stale: {remedy}"


def test_the_guide_shows_every_shipped_picture() -> None:
    shown = set(re.findall(r"patterns/(\w+)\.svg", (DOCS / "guide.md").read_text(encoding="utf-8")))
    assert shown == {path.stem for path in (DOCS / "patterns").iterdir()}
    assert len(shown) > 1
