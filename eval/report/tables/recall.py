"""Multi-query associative recall as a table: accuracy by variant, length and number of pairs, beside the heat map."""

from collections.abc import Sequence

from eval.report.qualities import one_per_seed, over_seeds, recall_rows, subject_of
from eval.report.tables.table import Table
from eval.report.wording import NOTHING
from eval.rows import Quality, Row


def recall_table(rows: Sequence[Row]) -> Table:
    """A line for each variant and length of the rows, a column for each number of pairs; means over seeds.

    Args:
        rows: Of one device.
    """
    shown = [row.quality for row in recall_rows(rows) if row.quality is not None and row.quality.value is not None]
    counts = sorted({each.num_pairs for each in shown if each.num_pairs is not None})
    lines: dict[tuple[str, int | None], dict[int | None, list[Quality]]] = {}
    for each in shown:
        lines.setdefault((each.variant, each.length), {}).setdefault(each.num_pairs, []).append(each)
    subjects = dict.fromkeys(str(subject_of(each)) for each in shown)
    return Table(
        columns=("variant", "tokens of a row", *(f"{count} pairs" for count in counts)),
        rows=tuple(
            (name, f"{length or NOTHING}", *(_accuracy(by_count.get(count, [])) for count in counts))
            for (name, length), by_count in lines.items()
        ),
        note=f"Accuracy of {', '.join(subjects)}, on examples that neither training nor validation saw; means over n "
        "seeds ± standard deviation.",
    )


def _accuracy(found: Sequence[Quality]) -> str:
    values = (each.value for each in one_per_seed(found).values() if each.value is not None)
    return str(over_seeds(values) or NOTHING)
