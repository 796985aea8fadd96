"""Nothing that a file says is interpreted: not by a browser, a Markdown reader, a spreadsheet, a terminal, a figure."""

import csv
import re
import xml.etree.ElementTree
from collections.abc import Sequence

import pytest
from markdown_it import MarkdownIt

from eval.report import ReportFiles, write_report
from eval.report.readme import PARTS, regenerated
from eval.report.text import Table, as_text, interval, label, markdown, num_bytes, number, spreadsheet
from eval.rows import Row
from eval.statistics import Contrast
from tests.eval.report.planted import model_rows, quality_rows, recall_row
from tests.eval.rows_factory import altered
from zoo.config.errors import printable

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</script></style></svg></title><b>",
    '" onmouseover="alert(1)',
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "x](javascript:alert(1)) [",
    "<!-- results:figure -->",
    "<!-- /results:variants -->",
    "a|b`c` *d* _e_ ~~f~~ $g$ \\h &lt;i&gt;",
    "http://example.org www.example.org",
    "two\nlines\r\n# heading\n\n- item",
    "\x1b[31mred\x1b[0m\x07\x00",
    "\u202egnp.exe\u2066",
    "$\\frac{1}{$ x_1^{2",
    "_hidden",
    "=HYPERLINK(1)",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "漢字 😀",
    "",
    "x" * 999,
)


def _rows(texts: Sequence[str]) -> list[Row]:
    """A training step and two qualities for each text, in which everything that has a name has this one."""
    step = next(row for row in model_rows() if row.cell and (row.cell.model, row.cell.mode) == ("gpt_tiny", "step"))
    trained = next(row for row in quality_rows(1) if row.quality and row.quality.curve)
    rows = []
    for text in texts:
        named = [altered(step, "cell", variant=text, group=f"of {text}")]
        for row in (trained, recall_row("mha", 0, 0.5, num_pairs=4)):
            named.append(altered(row, "quality", variant=text, model=text, data=text))
        for row in named:
            own = {"flags": [text], "reason": text, "identity": f"{row.identity}{text}"}
            rows.append(altered(row, "machine", device=" ".join(texts), commit=text).model_copy(update=own))
    return rows


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(_rows(HOSTILE), tmp_path_factory.mktemp("hostile"), title=" ".join(HOSTILE))


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(_rows(["mha", "swa"]), tmp_path_factory.mktemp("tame"), title="Tame")


def _tags(document: str) -> set[str]:
    return set(re.findall(r"<[a-zA-Z/][^>]*>", MarkdownIt("commonmark").enable("table").render(document)))


def test_a_name_is_no_markup_in_the_page(hostile: ReportFiles, tame: ReportFiles) -> None:
    tags = re.compile(r"<(?:script|img|b|style|title|svg|a|h1)\b(?: [a-z-]+=\"[^\"]*\")*>")
    page = hostile.html.read_text(encoding="utf-8")
    assert set(re.findall(r"<[a-z0-9]+", page)) == set(re.findall(r"<[a-z0-9]+", tame.html.read_text(encoding="utf-8")))
    assert {each for each in tags.findall(page) if "javascript:" in each or 'onmouseover="' in each} == set()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_name_is_no_markup_in_markdown(hostile: ReportFiles, tame: ReportFiles) -> None:
    figures = {path.stem for path in hostile.figures}
    assert figures == {path.stem for path in tame.figures} >= {"loss_curves", "recall"}
    document = hostile.markdown.read_text(encoding="utf-8")
    assert _tags(document) == _tags(tame.markdown.read_text(encoding="utf-8"))
    assert "<" not in document


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    (line,) = (each for each in reader.parse(f"| a |\n| --- |\n| .{markdown(text)}. |")[-5:] if each.type == "inline")
    assert {each.type for each in line.children or []} <= {"text", "text_special"}
    assert "".join(each.content for each in line.children or []) == f".{printable(text)}."


def test_no_file_has_a_character_that_cannot_be_seen(hostile: ReportFiles) -> None:
    for path in (hostile.html, hostile.markdown, hostile.csv, hostile.json, *hostile.figures):
        content = path.read_text(encoding="utf-8")
        assert [each for each in set(content) if not each.isprintable() and each != "\n"] == [], path.name


def test_a_name_is_text_in_a_figure(hostile: ReportFiles) -> None:
    texts = ""
    for figure in hostile.figures:
        root = xml.etree.ElementTree.fromstring(figure.read_bytes())
        drawn = {"svg", "style", "defs", "g", "path", "text", "use", "clipPath", "rect"}
        assert {each.tag.rpartition("}")[2] for each in root.iter()} <= drawn
        texts += "".join(root.itertext())
    for text in ("<script>alert(1)</script>", "$\\frac{1}{$ x_1^{2", "_hidden", "漢字 😀", "\\u202egnp.exe\\u2066"):
        assert text in texts


def test_a_name_is_no_formula_in_a_spreadsheet(hostile: ReportFiles) -> None:
    with hostile.csv.open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert [cell for cell in cells if re.match(r"\s*[=+@-]", cell) and not re.fullmatch(r"-?[\d.e-]+", cell)] == []
    assert "'=HYPERLINK(1)" in cells


def test_a_document_with_hostile_names_is_regenerated_again_and_again() -> None:
    parts = [name for name in PARTS if name != "figure"]
    document = "".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n" for name in parts)
    rows = _rows(HOSTILE)
    first = regenerated(document, rows, report="r")
    assert regenerated(first, rows, report="r") == first
    assert re.findall("<!--.*?-->", first) == re.findall("<!--.*?-->", document)
    assert regenerated(first, [], report="r") == document


@pytest.mark.parametrize(
    ("value", "cell"),
    [(-1.5, -1.5), (None, None), (True, True), ("-1.5", "-1.5"), ("+2", "+2"), ("mha", "mha"), ("a=b", "a=b")]
    + [(text, f"'{text}") for text in ("=1", "+1+1", "-a", "@x", "-1.5e", " =1", "-2+3+cmd|' /C calc'!A0")]
    + [("\t=1", "' =1"), ("\r=1", "' =1"), ("=1\n", "'=1 ")],
)
def test_a_spreadsheet_has_no_formula_and_keeps_its_numbers(value: object, cell: object) -> None:
    assert spreadsheet(value) == cell


def test_a_label_is_short_and_drawn_and_its_own() -> None:
    assert label("mha_manual") == "mha_manual"
    long = {label("x" * 900 + end) for end in "ab"}
    assert len(long) == 2
    assert max(len(each) for each in long) < 70
    assert not label("_hidden").startswith("_")
    assert label("")


def test_what_is_readable_stays_as_it_is() -> None:
    for text in ("mha_manual", "swa(window_size=64)", "1.2 [1.1, 1.3] ≠ over mha", "B=1, L=64: 3 × 4 (n=3)"):
        assert printable(text) == markdown(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((number(value), text) for value, text in ((None, "–"), (0, "0"), (1.0, "1.00"), (0.9234, "0.923"))),
        *((number(value), text) for value, text in ((12.345, "12.3"), (12345.6, "12,346"), (1e-9, "1.00e-09"))),
        *((number(value), text) for value, text in ((0.00044, "0.000440"), (0.0123, "0.0123"))),
        (interval(Contrast(value=1.5, low=1.4, high=1.6)), "1.50 [1.40, 1.60]"),
        (interval(Contrast(value=1.5, low=None, high=None)), "1.50"),
        (interval(None), "–"),
        *((num_bytes(value), text) for value, text in ((512, "512 B"), (65536, "64.0 KiB"), (None, "–"))),
        *((as_text(value), text) for value, text in ((True, "yes"), (None, "–"), (2.0, "2.00"))),
    ],
)
def test_numbers_keep_their_meaning_in_few_digits(text: str, expected: str) -> None:
    assert text == expected


def test_markdown_survives_what_would_break_its_columns() -> None:
    table = Table([{"variant": "swa", "b": "two\nlines"}, {"variant": "x|y", "b": "z"}])
    assert table.markdown().splitlines()[-2:] == ["| `swa` | two lines |", "| x\\|y | z |"]
