"""What each variant reached in training and in recall, and by how much that differs from the first one's by seed."""

import json
import statistics
from collections.abc import Iterable, Sequence

from eval.report.comparisons import named_comparisons, trainings
from eval.report.qualities import one_per_seed, over_seeds, qualities, recall_rows, subject_of
from eval.report.tables.table import Table
from eval.report.wording import NOTHING, num_bytes
from eval.rows import Quality, Row
from eval.rows.schema import Regime
from eval.statistics.intervals import paired_difference

_EQUAL: dict[Regime, str] = {"equal_tokens": "tokens", "equal_seconds": "seconds", "checkpoint": NOTHING}
_METRICS = {"bits_per_byte": "bits per byte"}


def trainings_table(rows: Sequence[Row]) -> Table:
    """A line for each variant of each comparison, in the order in which they were trained.

    Args:
        rows: Of one device.
    """
    lines = []
    compared = trainings(qualities(rows))
    names = named_comparisons(compared)
    for comparison, variants in compared.items():
        _, metric, regime, _ = comparison
        first = next(iter(variants.values()))
        for name, seeds in variants.items():
            lines.append(
                (
                    names[comparison],
                    _EQUAL[regime],
                    name,
                    _number_of_all([each.steps for each in seeds.values()]),
                    _METRICS.get(metric, metric) + _batches(seeds.values()),
                    str(over_seeds(_value(each) for each in seeds.values())),
                    NOTHING if seeds is first else _difference(seeds, first),
                    _number_of_all([each.tokens_per_second for each in seeds.values()]),
                    num_bytes(max((each.peak_bytes or 0 for each in seeds.values()), default=0) or None),
                )
            )
    return Table(
        columns=(
            "model and data",
            "at equal",
            "variant",
            "steps",
            "figure",
            "held-out value",
            "difference to the first",
            "training tokens/s",
            "peak",
        ),
        rows=tuple(lines),
        note="Values are means over n seeds ± standard deviation, as training itself found them last: evaluations may "
        "have looked at more. Differences are paired by seed, with Student's 95 % interval; one that includes 0 tells "
        "nothing apart. Tokens per second are those of the trainings, medians over seeds, with whatever ran beside "
        "them: speeds are compared by interleaved rounds, in the suites.",
    )


def _difference(seeds: dict[int, Quality], first: dict[int, Quality]) -> str:
    shared = [seed for seed in seeds if seed in first]
    if not shared:
        return NOTHING
    found = paired_difference(*([_value(each[seed]) for seed in shared] for each in (seeds, first)))
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.value:+.3f}{interval}"


def _batches(found: Iterable[Quality]) -> str:
    """How much of the held-out data the trainings looked at, where they say that it was not all."""
    limits = [json.loads(each.settings or "{}").get("training", {}).get("eval_batches") for each in found]
    known = [limit for limit in limits if type(limit) is int]
    return f" of at most {max(known)} batches" if known else ""


def _value(quality: Quality) -> float:
    assert quality.value is not None, "only qualities with a value are compared"
    return quality.value


def _number_of_all(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.0f}" if known else NOTHING


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
