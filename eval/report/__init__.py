"""Writes a report: a self-contained page, the same as Markdown, its data as JSON and CSV, its figures, and the rows.

Equal rows give equal bytes: nothing in it tells when it was written, only when its rows were measured.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.claims import judge
from eval.query import by_device, num_statuses
from eval.report.drawing import FigureKind, inline, standalone, svg_text
from eval.report.findings import (
    claim_lines,
    commits,
    coverage_table,
    findings,
    machines_table,
    reasons_table,
    rows_csv,
)
from eval.report.layer_figures import control, decode_memory, latency, speedups
from eval.report.model_figures import loss_curves, needle, pareto, recall, transfer
from eval.report.text import Table, label, markdown, plain_rows
from eval.report.trainings import exchanges_table, mended_table, trainings_table
from eval.report.variants import variants_table
from eval.rows import Row, packed
from zoo.config import UserError
from zoo.config.errors import printable
from zoo.config.files import replace_file

# What matters in a model first, then single layers, then the instrument.
FIGURES = (pareto, loss_curves, recall, needle, transfer, latency, speedups, decode_memory, control)
TABLES: Mapping[str, Callable[[Sequence[Row]], Table]] = {
    "variants": variants_table,
    "trainings": trainings_table,
    "exchanges": exchanges_table,
    "mended": mended_table,
    "coverage": coverage_table,
    "reasons": reasons_table,
    "machines": machines_table,
}
PACKED_ROWS = "rows.jsonl.gz"
# Longer device names would make file names that nobody reads.
_SLUG_LENGTH = 40
# Verdicts of claims that the rows say nothing of.
_UNTOLD = ("not measured", "not measurable on this device")


class ReportFiles(NamedTuple):
    """Where a report lies: the page, the same as Markdown without the details, all rows, the tables as data, figures.

    The rows are there twice: a line each in the CSV, and as they were given, with their raw samples, in gzip.
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
    shown, title = plain_rows(rows), printable(title)
    own = by_device(shown)
    devices = [_device(name, slug, own[name], is_first=name == next(iter(own))) for name, slug in _slugs(own).items()]
    drawn = [figure for device in devices for figure in device["figures"] if figure["drawn"]]
    figures = {folder / "figures" / f"{figure['name']}.svg": standalone(figure["svg"]) for figure in drawn}
    files = ReportFiles(
        html=folder / "report.html",
        markdown=folder / "report.md",
        csv=folder / "rows.csv",
        json=folder / "report.json",
        rows=folder / PACKED_ROWS,
        figures=tuple(figures),
    )
    context = {"title": title, "devices": devices, "num_rows": len(rows), "statuses": num_statuses(shown)}
    data = {"title": title, "rows": PACKED_ROWS, "devices": [_as_data(device) for device in devices]}
    environment = Environment(
        loader=PackageLoader("eval.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What we drew ourselves is markup; every text from rows is escaped.
    environment.filters["inline_svg"] = lambda svg, title: Markup(inline(svg, str(Markup.escape(title))))
    texts: dict[Path, str | bytes] = {
        files.html: environment.get_template("report.html.jinja").render(context),
        files.markdown: environment.overlay(finalize=markdown).get_template("report.md.jinja").render(context),
        files.csv: rows_csv(shown),
        files.json: json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        files.rows: packed(rows),
        **figures,
    }
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            replace_file(path, text)
        for stale in (folder / "figures").glob("*.svg"):
            if stale not in texts:
                stale.unlink()
    except OSError as error:
        raise UserError(f"out must be a folder that can be written; got {str(folder)!r} ({error.strerror})") from None
    return files


def _device(name: str, slug: str, rows: Sequence[Row], *, is_first: bool) -> dict[str, Any]:
    """What the templates tell of a device: devices never mix. The figures of the first have plain names."""
    claims, labelled = judge(rows), plain_rows(rows, label)
    lines = claim_lines(claims)
    return {
        "label": name,
        "slug": slug,
        "commits": commits(rows),
        "findings": findings(rows, claims),
        "claims": lines,
        "judged": {verdict: each for verdict, each in lines.items() if verdict not in _UNTOLD},
        "figures": [_drawn(kind, labelled, kind.name if is_first else f"{kind.name}-{slug}") for kind in FIGURES],
        "tables": {table: make(rows) for table, make in TABLES.items()},
    }


def _drawn(kind: FigureKind, rows: Sequence[Row], name: str) -> dict[str, Any]:
    drawing = kind.drawn(rows)
    svg, reason = (None, drawing) if isinstance(drawing, str) else (svg_text(drawing, name), None)
    told = {"name": name, "title": kind.title, "drawn": svg is not None, "reason": reason}
    return {**told, "caption": kind.caption, "svg": svg}


def _as_data(device: Mapping[str, Any]) -> dict[str, Any]:
    drawings = ("caption", "svg")
    return {
        "device": device["label"],
        "commits": device["commits"],
        "findings": device["findings"],
        **{name: table.lines for name, table in device["tables"].items()},
        "claims": [line for lines in device["claims"].values() for line in lines],
        "figures": [
            {name: value for name, value in each.items() if name not in drawings} for each in device["figures"]
        ],
    }


def _slugs(labels: Iterable[str]) -> dict[str, str]:
    """Short names for links and files, different ones for different labels."""
    slugs: dict[str, str] = {}
    for name in labels:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH].strip("-") or "device"
        slugs[name] = f"{slug}_{len(slugs) + 1}" if slug in slugs.values() else slug
    return slugs
