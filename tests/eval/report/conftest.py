"""One report and one judgement of planted rows for all tests."""

import pytest

from eval.claims import Finding, judge
from eval.report import ReportFiles, write_report
from eval.rows import Row
from tests.eval.report.planted import all_rows


@pytest.fixture(scope="package")
def rows() -> list[Row]:
    return all_rows()


@pytest.fixture(scope="package")
def judged(rows: list[Row]) -> list[Finding]:
    return judge(rows)


@pytest.fixture(scope="package")
def report(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(rows, tmp_path_factory.mktemp("report"), title="Planted <rows> & more")
