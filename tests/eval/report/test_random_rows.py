"""Every file of rows that the schema takes can be reported, whatever few, odd or extreme facts it holds."""

import re
import warnings
from pathlib import Path

import pytest

from eval.report import write_report
from eval.report.readme import PARTS, regenerated
from eval.rows import Row, read_rows
from tests.eval.report.random_rows import random_rows
from tests.eval.rows_factory import CURVE, attention, plain_cell, quality_row, skipped, speed_row, untimed_row

DOCUMENT = "".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->\n" for name in PARTS)


def _reported(rows: list[Row], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(rows, folder, title="Any")
        page = regenerated(DOCUMENT, rows, report="r")
    assert regenerated(page, rows, report="r") == page
    assert len(read_rows(files.rows)) == len({row.identity for row in rows})
    for figure in files.figures:
        # A figure with nothing in it is none.
        assert re.search(r'id="[\w-]+(?<!axes)_\d+"', figure.read_text(encoding="utf-8")), figure


# Together they draw seven of the nine figures.
@pytest.mark.parametrize("seed", [0, 1, 3, 5, 8, 13, 15, 20, 22, 24, 27, 33, 37])
def test_a_report_can_be_written_of_any_valid_rows(seed: int, tmp_path: Path) -> None:
    _reported(random_rows(seed), tmp_path)


@pytest.mark.parametrize(
    ("suite", "mode"),
    [("attnbench", "forward"), ("transfer", "step"), ("decode", "decode"), ("long", "forward"), ("grid", "step")],
)
def test_a_short_benchmark_can_be_reported(suite: str, mode: str, tmp_path: Path) -> None:
    own = {"suite": suite, "mode": mode, "attention": attention("mha"), "model": "gpt_tiny", "level": "model"}
    alone, other = (speed_row(plain_cell(64, **own, variant=name), [1e-3]) for name in ("mha", "swa"))
    _reported([alone], tmp_path)
    _reported([alone, other, untimed_row(plain_cell(2, **own))], tmp_path)


TRAINED = quality_row("mha", 0, 2.5, curve=CURVE)


@pytest.mark.parametrize("rows", [[skipped(1)], [TRAINED], [quality_row("mha", 0, None)], [skipped(1), TRAINED]])
def test_rows_without_times_can_be_reported(rows: list[Row], tmp_path: Path) -> None:
    _reported(rows, tmp_path)
