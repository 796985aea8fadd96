"""Writes a report: a self-contained page, the same as Markdown, its data as JSON and CSV, its figures, and the rows.

Equal rows give equal bytes: nothing in it tells when it was written, only when its rows were measured.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.claims import judge
from eval.query import by_device, num_statuses
from eval.report.drawing import Absent, FigureKind, inline, standalone, svg_text
from eval.report.figures import FIGURES
from eval.report.findings import (
    claim_lines,
    commits,
    coverage_table,
    findings,
    machines_table,
    reasons_table,
    rows_csv,
)
from eval.report.text import Table, label, markdown, plain_rows
from eval.report.trainings import exchanges_table, mended_table, trainings_table
from eval.report.variants import variants_table
from eval.rows import Row, packed
from zoo.config import UserError
from zoo.config.errors import printable
from zoo.config.files import replace_file

PACKED_ROWS = "rows.jsonl.gz"
# Longer device names would make file names that nobody reads.
_SLUG_LENGTH = 40
# Verdicts of claims that the rows say nothing of.
_UNTOLD = ("not measured", "not measurable on this device")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report lies.

    Attributes:
        html: The page.
        markdown: The same, without the details.
        csv: All rows, one line each.
        json: The tables of the page, as data; raw samples are in the rows.
        rows: All rows, as they were given, in gzip.
        figures: One SVG file for each figure that could be drawn.
    """

    html: Path
    markdown: Path
    csv: Path
    json: Path
    rows: Path
    figures: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A figure of one device: its kind, the name of its file, and the drawing or the reason why there is none."""

    kind: FigureKind
    name: str
    svg: str | None
    reason: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """Everything about the rows of one device; devices never mix in a figure or a table.

    Attributes:
        label: The device's own name and back end.
        slug: The same for links.
        commits: Of the rows.
        findings: One sentence each.
        claims: Verdict -> published claims with our figures.
        figures: All of them, drawn or not.
        tables: By name.
    """

    label: str
    slug: str
    commits: str
    findings: list[str]
    claims: dict[str, list[dict[str, str]]]
    figures: tuple[DrawnFigure, ...]
    tables: dict[str, Table]

    @property
    def judged(self) -> dict[str, list[dict[str, str]]]:
        """The claims that the rows say something of."""
        return {verdict: lines for verdict, lines in self.claims.items() if verdict not in _UNTOLD}

    def data(self) -> dict[str, Any]:
        """As JSON."""
        figures = [
            {"name": each.name, "title": each.kind.title, "drawn": each.svg is not None, "reason": each.reason}
            for each in self.figures
        ]
        claims = [line for lines in self.claims.values() for line in lines]
        head = {"device": self.label, "commits": self.commits, "findings": self.findings}
        tables = {name: table.records() for name, table in self.tables.items()}
        return {**head, **tables, "claims": claims, "figures": figures}


def write_report(rows: Sequence[Row], folder: Path, *, title: str) -> ReportFiles:
    """Writes the report of some rows.

    Args:
        rows: Of any suites, kinds and devices; each device gets a part of its own.
        folder: Where to write; created if missing. Figures of an earlier report in it are removed.
        title: Of the page.

    Raises:
        UserError: If there are no rows, or the folder cannot be written.
    """
    if not rows:
        raise UserError("rows must hold one row at least; got none")
    shown = plain_rows(rows)
    devices = device_reports(shown)
    drawn = [(each.name, each.svg) for device in devices for each in device.figures]
    figures = {folder / "figures" / f"{name}.svg": standalone(svg) for name, svg in drawn if svg is not None}
    title = printable(title)
    context = {"title": title, "devices": devices, "num_rows": len(rows), "statuses": num_statuses(shown)}
    names = {"html": "report.html", "markdown": "report.md", "csv": "rows.csv", "json": "report.json"}
    files = ReportFiles(
        **{kind: folder / name for kind, name in names.items()},
        rows=folder / PACKED_ROWS,
        figures=tuple(figures),
    )
    data = {"title": title, "rows": PACKED_ROWS, "devices": [device.data() for device in devices]}
    environment = _environment()
    texts: dict[Path, str | bytes] = {
        files.html: environment.get_template("report.html.jinja").render(context),
        files.markdown: environment.overlay(finalize=markdown).get_template("report.md.jinja").render(context),
        files.csv: rows_csv(shown),
        files.json: json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        files.rows: packed(rows),
        **figures,
    }
    _write(texts, folder)
    return files


def device_reports(rows: Sequence[Row]) -> list[DeviceReport]:
    """A report of each device, the one with most speed rows first; its figures have plain names."""
    devices = by_device(rows)
    slugs = _slugs(list(devices))
    found = []
    for index, (name, own) in enumerate(devices.items()):
        claims, drawn = judge(own), plain_rows(own, label)
        suffix = "" if index == 0 else f"-{slugs[name]}"
        found.append(
            DeviceReport(
                label=name,
                slug=slugs[name],
                commits=commits(own),
                findings=findings(own, claims),
                claims=claim_lines(claims),
                figures=tuple(_drawn(kind, drawn, f"{kind.name}{suffix}") for kind in FIGURES),
                tables={
                    "variants": variants_table(own),
                    "trainings": trainings_table(own),
                    "exchanges": exchanges_table(own),
                    "mended": mended_table(own),
                    "coverage": coverage_table(own),
                    "reasons": reasons_table(own),
                    "machines": machines_table(own),
                },
            )
        )
    return found


def _drawn(kind: FigureKind, rows: Sequence[Row], name: str) -> DrawnFigure:
    drawing = kind.drawn(rows)
    if isinstance(drawing, Absent):
        return DrawnFigure(kind=kind, name=name, svg=None, reason=drawing.reason)
    return DrawnFigure(kind=kind, name=name, svg=svg_text(drawing, name), reason=None)


def _slugs(labels: Sequence[str]) -> dict[str, str]:
    """Short names for links and files, different ones for different labels."""
    slugs: dict[str, str] = {}
    for name in labels:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH].strip("-") or "device"
        taken = sum(other == slug or other.startswith(f"{slug}_") for other in slugs.values())
        slugs[name] = f"{slug}_{taken + 1}" if taken else slug
    return slugs


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("eval.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What we drew ourselves is markup; every text from rows is escaped.
    environment.filters["inline_svg"] = lambda svg, title: Markup(inline(svg, str(Markup.escape(title))))
    return environment


def _write(texts: Mapping[Path, str | bytes], folder: Path) -> None:
    try:
        figures = folder / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            replace_file(path, text)
        for stale in figures.glob("*.svg"):
            if stale not in texts:
                stale.unlink()
    except OSError as error:
        raise UserError(f"out must be a folder that can be written; got {str(folder)!r} ({error.strerror})") from None
