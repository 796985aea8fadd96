"""The guide's table of mechanisms says what the registry holds; a new mechanism need not be in it."""

import re
from pathlib import Path

import pytest

from zoo.attention import mechanism
from zoo.attention.mechanism import AUTO

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"


def _rows() -> dict[str, set[str]]:
    """Mechanism to the implementations named in its row's last cell."""
    text = GUIDE.read_text(encoding="utf-8")
    table = text[text.index("| mechanism |") : text.index("A softmax mechanism *is* its pattern")]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:] if line.startswith("| `")]
    return {re.findall(r"`(\w+)`", row[0])[0]: set(re.findall(r"`(\w+)`", row[-1])) for row in rows}


@pytest.mark.parametrize("name", sorted(_rows()))
def test_the_guide_names_the_implementations_that_there_are(name: str) -> None:
    declared = mechanism(name)
    # What every softmax mechanism has is said once, below the table.
    assert _rows()[name] == {*declared.implementations} - {AUTO, *declared.packaged}
