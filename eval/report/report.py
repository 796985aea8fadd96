"""Writes a report: a self-contained page, its outline as Markdown, CSV and JSON, its figures, and the rows themselves.

Equal rows give equal bytes: nothing in it tells when it was written, only when its rows were measured.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.query import num_statuses
from eval.report.contents import DeviceReport, device_reports
from eval.report.plain import markdown, plain_rows
from eval.report.svg import inline, standalone
from eval.report.tables.all_rows import row_lines, rows_csv, shown_columns
from eval.report.tables.table import Table
from eval.rows import Row, packed
from zoo.config import UserError
from zoo.config.errors import printable
from zoo.config.files import replace_file

PACKED_ROWS = "rows.jsonl.gz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report lies.

    Attributes:
        html: The page.
        markdown: Its outline: variants, trainings, figures and claims, without suites and rows.
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
    columns = shown_columns(shown)
    lines = row_lines(shown, columns)
    figures = _figure_files(devices, folder / "figures")
    context = {
        "title": printable(title),
        "devices": devices,
        "num_rows": len(rows),
        "statuses": num_statuses(shown),
        "sections": list(dict.fromkeys(line.section for line in lines)),
        "columns": columns,
        "lines": lines,
    }
    files = ReportFiles(
        html=folder / "report.html",
        markdown=folder / "report.md",
        csv=folder / "rows.csv",
        json=folder / "report.json",
        rows=folder / PACKED_ROWS,
        figures=tuple(figures),
    )
    environment = _environment()
    texts: dict[Path, str | bytes] = {
        files.html: environment.get_template("report.html.jinja").render(context),
        files.markdown: environment.overlay(finalize=markdown).get_template("report.md.jinja").render(context),
        files.csv: rows_csv(shown),
        files.json: json.dumps(_data(printable(title), devices), indent=1, ensure_ascii=False) + "\n",
        files.rows: packed(rows),
        **figures,
    }
    _write(texts, folder)
    return files


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


def _figure_files(devices: Sequence[DeviceReport], folder: Path) -> dict[Path, str]:
    drawn = ((each.name, each.svg) for device in devices for each in device.figures)
    return {folder / f"{name}.svg": standalone(svg) for name, svg in drawn if svg is not None}


def _data(title: str, devices: Sequence[DeviceReport]) -> dict[str, Any]:
    return {"title": title, "rows": PACKED_ROWS, "devices": [_device_data(device) for device in devices]}


def _device_data(device: DeviceReport) -> dict[str, Any]:
    return {
        "device": device.label,
        "commits": device.commits,
        "variants": _records(device.variants),
        "trainings": _records(device.trainings),
        "recall": _records(device.recall),
        "surgeries": _records(device.surgeries),
        "mended": _records(device.mended),
        "claims": _records(device.claims),
        "figures": [
            {"name": each.name, "title": each.kind.title, "drawn": each.svg is not None, "reason": each.reason}
            for each in device.figures
        ],
        "suites": [
            {
                "suite": section.name,
                "purpose": section.purpose,
                "statuses": section.statuses,
                "figures": [record for table in section.figures for record in _records(table)],
                "groups": {name: _records(table) for name, table in section.groups.items()},
            }
            for section in device.suites
        ],
        "coverage": _records(device.coverage),
        "reasons": _records(device.reasons),
    }


def _records(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


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
