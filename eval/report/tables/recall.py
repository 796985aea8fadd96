"""Multi-query associative recall as a table: accuracy by variant and number of pairs, beside the heat map."""

from collections.abc import Sequence

from eval.report.qualities import QualityBook, one_per_seed, over_seeds, recall_rows
from eval.report.tables.table import Table
from eval.report.wording import NOTHING
from eval.rows import Quality, Row


def recall_table(rows: Sequence[Row]) -> Table:
    """A line for each variant, a column for each number of pairs; means over seeds.

    Args:
        rows: Of one device.
    """
    found: dict[str, dict[int, list[Quality]]] = {}
    for row in recall_rows(rows):
        quality = row.quality
        assert quality is not None, "rows of quality"
        assert quality.num_pairs is not None, "recall by number of pairs"
        if quality.value is not None:
            found.setdefault(quality.variant, {}).setdefault(quality.num_pairs, []).append(quality)
    counts = sorted({count for by_count in found.values() for count in by_count})
    return Table(
        columns=("variant", *(f"{count} pairs" for count in counts)),
        rows=tuple(
            (name, *(_accuracy(by_count.get(count, [])) for count in counts)) for name, by_count in found.items()
        ),
        note=f"Accuracy of {QualityBook(rows).recalling}, on examples that neither training nor validation saw; means "
        "over n seeds ± standard deviation.",
    )


def _accuracy(found: Sequence[Quality]) -> str:
    values = (each.value for each in one_per_seed(found).values() if each.value is not None)
    return str(over_seeds(values) or NOTHING)
