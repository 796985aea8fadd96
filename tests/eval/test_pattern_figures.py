"""The pictures in the guide are the patterns, as they are now."""

import re
from pathlib import Path

from eval.pattern_figures import draw_patterns, pattern_variants

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_shipped_pictures_are_drawn_from_the_patterns(tmp_path: Path) -> None:
    drawn = draw_patterns(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in (DOCS / "patterns").iterdir()}
    for path in drawn:
        shipped = DOCS / "patterns" / path.name
        assert shipped.read_bytes() == path.read_bytes(), (
            f"{path.name} is stale: python scripts/variants.py pictures=docs/patterns"
        )


def test_the_guide_shows_every_pattern() -> None:
    shown = set(re.findall(r"patterns/(\w+)\.svg", (DOCS / "guide.md").read_text(encoding="utf-8")))
    assert shown == set(pattern_variants())
