"""What each suite measured, group by group, and its own figures."""

import dataclasses
from collections.abc import Sequence

from eval.query import Measured, measured, num_statuses, same_rounds
from eval.report.qualities import QualityBook
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, interval, num_bytes, percent, plain, seconds
from eval.rows import Row
from eval.suites import suites

_COLUMNS = ("variant", "time", "over the baseline", "peak", "cache", "utilisation", "of bandwidth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteSection:
    """A suite's part of the report.

    Attributes:
        name: Of the suite.
        purpose: One line; empty for a suite that this version does not have.
        statuses: How many rows there are of each, in words.
        figures: The suite's own summary.
        groups: Name -> what was timed in the same rounds.
    """

    name: str
    purpose: str
    statuses: str
    figures: tuple[Table, ...]
    groups: dict[str, Table]


def suite_sections(rows: Sequence[Row]) -> list[SuiteSection]:
    """A section for each suite that has rows, in the order in which they come.

    Args:
        rows: Of one device.
    """
    book = QualityBook(rows)
    names = dict.fromkeys(each.cell.suite for each in measured(rows))
    return [_section(name, [row for row in rows if row.cell and row.cell.suite == name], book) for name in names]


def _section(name: str, rows: Sequence[Row], book: QualityBook) -> SuiteSection:
    suite = suites().get(name)
    groups = same_rounds(measured(rows))
    counts = num_statuses(rows)
    titles = [key[1] for key in groups]
    return SuiteSection(
        name=name,
        purpose="" if suite is None else suite.purpose,
        statuses=", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items()),
        figures=() if suite is None else tuple(_figures(suite.summary(rows))),
        groups={
            # Two commits on one device may both have measured a group.
            (key[1] if titles.count(key[1]) == 1 else f"{key[1]} ({key[2][:10]})"): _group_table(group, book)
            for key, group in groups.items()
        },
    )


def _figures(summary: Sequence[dict[str, object]]) -> list[Table]:
    """A table for all of the suite's figures that say the same things."""
    shapes: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for figure in summary:
        shapes.setdefault(tuple(figure), []).append(figure)
    return [
        Table(
            columns=tuple(name.replace("_", " ") for name in names),
            rows=tuple(tuple(plain(figure[name]) for name in names) for figure in figures),
        )
        for names, figures in shapes.items()
    ]


def _group_table(group: Sequence[Measured], book: QualityBook) -> Table:
    baseline = next((each.cell.variant for each in group if each.cell.role == "baseline"), None)
    models = {each.cell.model for each in group}
    # A row of an op or a layer shows what a model reached that was trained with its variant; one of a model, its own.
    model = next(iter(models)) if len(models) == 1 else None
    trained, recalling = book.trained(model), book.recalling
    return Table(
        columns=(
            *_COLUMNS,
            "bits per byte" if trained is None else f"bits per byte of {trained.model} trained with it",
            "recall" if recalling is None else f"recall of {recalling.model} trained with it",
            "status",
        ),
        rows=tuple(_line(each, book, model, baseline) for each in group),
        note=("" if baseline is None else f"Baseline: {baseline}. ≠: another function than the baseline's. ")
        + book.words(model),
    )


def _line(each: Measured, book: QualityBook, model: str | None, baseline: str | None) -> tuple[str, ...]:
    row, timing, comparison = each.row, each.timing, each.row.comparison
    ratio = NOTHING
    if comparison is not None:
        ratio = interval(comparison.ratio, comparison.ratio_low, comparison.ratio_high)
        ratio += "" if comparison.same_function else " ≠"
        # Two runs may have measured the group, each against its own first variant.
        ratio += "" if comparison.baseline == baseline else f" over {comparison.baseline}"
    status = row.status.replace("_", " ") + (f": {row.reason}" if row.reason else "")
    return (
        f"{each.cell.variant}{', causal' if each.cell.causal and each.cell.group.startswith('causal') else ''}",
        NOTHING if timing is None else seconds(timing.median_seconds, timing.interval_low, timing.interval_high),
        ratio,
        num_bytes(each.peak_bytes),
        num_bytes(each.cache_bytes),
        percent(None if row.work is None else row.work.utilisation),
        percent(None if row.work is None else row.work.bandwidth_share),
        str(book.bits_per_byte(each.cell.variant, each.cell.attention, model=model) or NOTHING),
        str(book.recall(each.cell.variant, each.cell.attention) or NOTHING),
        ", ".join([status, *row.flags]),
    )
