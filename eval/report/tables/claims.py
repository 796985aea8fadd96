"""Every published claim, our figure, and the verdict that the rows give."""

from collections.abc import Sequence

from eval.claims import Finding, judge
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, interval
from eval.rows import Row

COLUMNS = ("claim", "verdict", "published", "ours", "value and 95 % interval", "reason")


def claims_table(rows: Sequence[Row]) -> Table:
    """A line for each claim.

    Args:
        rows: Of one device.
    """
    return Table(columns=COLUMNS, rows=tuple(_line(finding) for finding in judge(rows)))


def _line(finding: Finding) -> tuple[str, ...]:
    claim = finding.claim
    value = interval(finding.value, finding.low, finding.high) if finding.value is not None else _open(finding)
    return (
        f"{claim.statement} ({claim.source}; {claim.id})",
        finding.verdict,
        claim.published,
        finding.ours or NOTHING,
        value,
        finding.reason or NOTHING,
    )


def _open(finding: Finding) -> str:
    """An interval without a value: of a crossover that the medians do not show."""
    if finding.low is None and finding.high is None:
        return NOTHING
    low, high = ("…" if end is None else f"{end:.3g}" for end in (finding.low, finding.high))
    return f"none [{low}, {high}]"
