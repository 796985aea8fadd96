"""Every published claim, our figure, and the verdict that the rows give."""

from collections.abc import Sequence

from eval.claims import Finding, judge
from eval.claims.claim import Verdict
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, interval, number, open_interval
from eval.rows import Row

_NOT_JUDGED: tuple[Verdict, ...] = ("not measured", "not measurable on this device")
COLUMNS = ("claim", "verdict", "published", "ours", "value and 95 % interval", "reason")


def claims_table(rows: Sequence[Row]) -> Table:
    """A line for each claim.

    Args:
        rows: Of one device.
    """
    return Table(columns=COLUMNS, rows=tuple(_line(finding) for finding in judge(rows)))


def judged_claims(table: Table) -> Table:
    """The claims that the rows say something of, and how many there are beside them."""
    kept = tuple(line for line in table.rows if line[1] not in _NOT_JUDGED)
    others = len(table.rows) - len(kept)
    note = (
        f"{others} other claims are not measured, or not measurable on this device; report.json of the page says why."
    )
    return Table(columns=table.columns, rows=kept, note=note if others else "")


def _line(finding: Finding) -> tuple[str, ...]:
    claim = finding.claim
    value = _value(finding)
    return (
        f"{claim.statement} ({claim.source}; {claim.id})",
        finding.verdict,
        claim.published,
        finding.ours or NOTHING,
        value,
        finding.reason or NOTHING,
    )


def _value(finding: Finding) -> str:
    """The value with its interval, either of which may be open or missing, as those of a crossover are."""
    if finding.low is not None and finding.high is not None and finding.value is not None:
        return interval(finding.value, finding.low, finding.high)
    ends = open_interval(finding.low, finding.high, ".3g")
    if finding.value is None:
        return f"none {ends}" if ends else NOTHING
    return f"{number(finding.value)} {ends}".strip()
