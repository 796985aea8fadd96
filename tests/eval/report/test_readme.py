"""Documents say what the stored rows say; without rows their marked parts are empty."""

from pathlib import Path

import pytest

from eval.report.readme import regenerate, regenerated
from eval.rows import Row, read_rows
from zoo.config import UserError

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "docs" / "results"
# The report's folder, as each page links to it.
PAGES = {
    "README.md": "docs/results",
    "docs/results/README.md": ".",
    "docs/guide.md": "results",
    "docs/scaling.md": "results",
}
DOCUMENT = "before\n\n<!-- results:variants -->\nold\n<!-- /results:variants -->\n\nafter\n"


@pytest.fixture(scope="module")
def stored() -> list[Row]:
    path = RESULTS / "rows.jsonl.gz"
    return read_rows(path) if path.is_file() else []


@pytest.mark.parametrize("name", PAGES)
def test_a_document_is_what_its_rows_make_of_it_and_its_figures_are_there(name: str, stored: list[Row]) -> None:
    page, link = ROOT / name, PAGES[name]
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    assert regenerated(text, stored, report=link) == text
    for part in text.split(f"({link}/figures/")[1:]:
        assert (RESULTS / "figures" / part.partition(")")[0]).is_file()


def test_a_part_is_made_from_rows_and_the_rest_stays(rows: list[Row]) -> None:
    text = regenerated(DOCUMENT, rows, report="docs/results")
    assert text.startswith("before\n\n<!-- results:variants -->\n| variant | training speed over mha (×) |")
    assert text.endswith("<!-- /results:variants -->\n\nafter\n")
    assert "old" not in text
    assert "| `swa` | 1.1" in text
    assert "Planted Processor, 2 cores, Linux CPU (cpu), commit 0123456789" in text
    assert regenerated(text, rows, report="docs/results") == text
    counted = regenerated(DOCUMENT.replace("variants", "coverage"), rows, report="docs/results")
    assert f"| all | {len(rows)} |" in counted


def test_the_figures_link_leads_from_the_document_to_the_report(rows: list[Row], tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- results:figure -->\n<!-- /results:figure -->\n", encoding="utf-8")
    assert regenerate(page, rows, tmp_path / "results")
    assert "(../results/figures/pareto.svg)" in page.read_text(encoding="utf-8")
    assert not regenerate(page, rows, tmp_path / "results")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("<!-- results:speed -->\n<!-- /results:speed -->\n", "variants, figure"),
        ("<!-- results:variants -->\n", "partner"),
        ("<!-- results:variants -->\n<!-- /results:figure -->\n", "partner"),
    ],
)
def test_wrong_marks_are_named(document: str, named: str, rows: list[Row]) -> None:
    with pytest.raises(UserError, match=named):
        regenerated(document, rows, report="r")
