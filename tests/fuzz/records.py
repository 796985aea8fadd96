"""Files of records, and the report that is made of them."""

import functools
import json
import random
from pathlib import Path

from eval.report import write_report
from eval.rows import read_rows
from tests.eval.report.planted import all_rows
from tests.fuzz.hostile import as_json, changed, damaged
from tests.fuzz.subject import Subject


@functools.cache
def planted() -> tuple[str, ...]:
    """Lines of valid records of every kind."""
    return tuple(row.model_dump_json() for row in all_rows())


class Records(Subject):
    """Lines of records that are changed, damaged and mixed."""

    name = "records"
    share = 4.0

    def attempt(self, rng: random.Random, folder: Path) -> None:
        path = folder / "rows.jsonl"
        path.write_bytes(_lines(rng, rng.choice((1, 3))))
        read_rows(path)


class Report(Subject):
    """Reports of a few records, whatever they hold."""

    name = "report"
    share = 0.25

    def attempt(self, rng: random.Random, folder: Path) -> None:
        path = folder / "rows.jsonl"
        lines = rng.sample(planted(), rng.choice((1, 2, 5)))
        kept = []
        for line in lines:
            # Of several tries, the first that is still a record.
            for _ in range(30):
                path.write_bytes(as_json(rng, changed(rng, json.loads(line))) + b"\n")
                try:
                    kept += read_rows(path)
                except ValueError:
                    continue
                break
        if kept:
            write_report(kept, folder / "report", title="hostile")


def _lines(rng: random.Random, count: int) -> bytes:
    lines = [line.encode() for line in rng.sample(planted(), count)]
    index = rng.randrange(count)
    lines[index] = as_json(rng, changed(rng, json.loads(lines[index])))
    content = b"\n".join(lines) + b"\n"
    return damaged(rng, content) if rng.random() < 0.3 else content
