"""What a report says, before it is written as a page, as Markdown or as data."""

import dataclasses
import re
from collections.abc import Sequence

from eval.query import by_device
from eval.report.figures import FIGURES, Absent, FigureKind
from eval.report.plain import label, plain_rows
from eval.report.svg import svg_text
from eval.report.tables.claims import claims_table, judged_claims
from eval.report.tables.coverage import commits, coverage_table, machines_table, reasons_table
from eval.report.tables.exchanges import mended_table, surgeries_table
from eval.report.tables.suites import SuiteSection, suite_sections
from eval.report.tables.table import Table
from eval.report.tables.trainings import recall_table, trainings_table
from eval.report.tables.variants import variants_table
from eval.rows import Row

# Longer device names would make file names that nobody reads.
_SLUG_LENGTH = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A figure of one device.

    Attributes:
        kind: What it is.
        name: Of its file, without suffix.
        svg: The drawing; None where the rows do not give one.
        reason: Why there is none; None if there is one.
    """

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
        variants: What each variant costs and is worth.
        trainings: What each variant reached in training.
        recall: Accuracy by number of pairs.
        surgeries: What exchanging the attention of trained models did.
        mended: What came back of what that broke.
        claims: Verdicts on all of them.
        judged: The claims that the rows say something of.
        figures: All of them, drawn or not.
        suites: What was measured.
        coverage: Rows by suite and status.
        reasons: Why rows are not ok.
        machines: Versions.
    """

    label: str
    slug: str
    commits: str
    variants: Table
    trainings: Table
    recall: Table
    surgeries: Table
    mended: Table
    claims: Table
    judged: Table
    figures: tuple[DrawnFigure, ...]
    suites: tuple[SuiteSection, ...]
    coverage: Table
    reasons: Table
    machines: Table


def device_reports(rows: Sequence[Row]) -> list[DeviceReport]:
    """A report of each device, the one with most speed rows first; its figures have plain names."""
    devices = by_device(rows)
    slugs = _slugs(list(devices))
    return [
        _device_report(name, slugs[name], own, suffix="" if index == 0 else f"-{slugs[name]}")
        for index, (name, own) in enumerate(devices.items())
    ]


def _device_report(name: str, slug: str, rows: Sequence[Row], *, suffix: str) -> DeviceReport:
    claims, drawn = claims_table(rows), plain_rows(rows, label)
    return DeviceReport(
        label=name,
        slug=slug,
        commits=commits(rows),
        variants=variants_table(rows),
        trainings=trainings_table(rows),
        recall=recall_table(rows),
        surgeries=surgeries_table(rows),
        mended=mended_table(rows),
        claims=claims,
        judged=judged_claims(claims),
        figures=tuple(_drawn(kind, drawn, f"{kind.name}{suffix}") for kind in FIGURES),
        suites=tuple(suite_sections(rows)),
        coverage=coverage_table(rows),
        reasons=reasons_table(rows),
        machines=machines_table(rows),
    )


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
