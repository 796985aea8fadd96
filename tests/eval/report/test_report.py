"""A report says the same in all its forms, names the rows' own device, and hides nothing."""

import csv
import errno
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.report import FIGURES, ReportFiles, write_report
from eval.rows import Row, read_rows
from tests.eval.rows_factory import altered, quality_row, skipped, speed
from zoo.config import UserError

SAME = ("language", 0, "equal_tokens")


def _devices(files: ReportFiles) -> list[dict[str, Any]]:
    return json.loads(files.json.read_text(encoding="utf-8"))["devices"]


def test_every_row_is_a_line_of_the_csv_with_its_status(report: ReportFiles, rows: list[Row]) -> None:
    with report.csv.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["identity"], line["status"]) for line in lines] == [(row.identity, row.status) for row in rows]
    assert float(lines[0]["timing.median_seconds"]) == rows[0].timing.median_seconds
    assert read_rows(report.rows) == rows


def test_every_figure_can_be_drawn_from_a_whole_run(report: ReportFiles) -> None:
    assert [path.stem for path in report.figures] == [kind.name for kind in FIGURES]
    assert all(path.read_text(encoding="utf-8").startswith("<?xml") for path in report.figures)


def test_nothing_is_called_apple_unless_a_row_says_so(report: ReportFiles) -> None:
    assert "Planted Processor, 2 cores, Linux CPU (cpu)" in report.html.read_text(encoding="utf-8")
    (device,) = _devices(report)
    del device["claims"]
    assert "apple" not in json.dumps(device).lower()


def test_devices_never_mix(tmp_path: Path, rows: list[Row]) -> None:
    steps = [row for row in rows if row.cell is not None and row.cell.suite == "transfer"][:12]
    other = [altered(row, "machine", device="Apple M4 Pro") for row in steps[:6]]
    files = write_report([*steps, *other], tmp_path, title="Two")
    first, second = _devices(files)
    for device, name, count in ((first, "Planted Processor, 2 cores, Linux CPU", 12), (second, "Apple M4 Pro", 6)):
        assert device["device"] == f"{name} (cpu)"
        assert sum(int(line["rows"]) for line in device["coverage"] if line["suite"] == "all") == count


def test_the_first_screen_has_the_findings_then_the_figure_then_the_table(report: ReportFiles) -> None:
    (device,) = _devices(report)
    assert len(device["findings"]) > 4
    figure = {"html": '<figure id="pareto">', "markdown": "](figures/pareto.svg)"}
    table = {"html": ">training speed over mha (×)<", "markdown": "| training speed over mha (×) |"}
    for kind in ("html", "markdown"):
        text = getattr(report, kind).read_text(encoding="utf-8")
        order = [*device["findings"], figure[kind], table[kind], "latency", "Published claims", "Machine"]
        places = [text.rindex(part) if part == "Machine" else text.index(part) for part in order]
        assert places == sorted(places), kind


def test_the_shipped_page_is_short() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "results" / "report.md"
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    assert len(lines) <= 300


def test_few_rows_give_a_report_whose_figures_say_what_is_missing_and_none_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "latency.svg").write_text("old", encoding="utf-8")
    files = write_report([speed(64), skipped(128), quality_row("mha", 0, None)], tmp_path, title="Few")
    assert files.figures == ()
    assert not (tmp_path / "figures" / "latency.svg").exists()
    figures = _devices(files)[0]["figures"]
    assert [figure["drawn"] for figure in figures] == [False] * len(FIGURES)
    assert all(figure["reason"] for figure in figures)
    for page in (files.html, files.markdown):
        assert "128 MiB do not fit" in page.read_text(encoding="utf-8")


def test_equal_rows_give_equal_bytes(tmp_path: Path, rows: list[Row]) -> None:
    some = [row for row in rows if row.cell is not None and row.cell.suite == "transfer" and row.cell.mode == "step"]
    told = [(row, row.quality) for row in rows if row.quality is not None]
    some += [row for row, quality in told if (quality.task, quality.seed, quality.budget) == SAME]
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        assert len(write_report(some, folder, title="Same").figures) == 2
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        written.append({path.relative_to(folder): path.read_bytes() for path in paths})
    assert written[0] == written[1]


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folders = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("new")
    for folder in folders:
        write_report([speed(64)], folder, title=folder.name)
    return folders


@pytest.mark.parametrize("number", range(10))
def test_a_write_that_fails_is_one_line_and_leaves_every_file_whole(
    number: int, old_and_new: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = old_and_new
    out = shutil.copytree(old, tmp_path / "out")
    calls = itertools.count()

    def full(_: int) -> None:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"out must be a folder that can be written.*No space left on device"):
        write_report([speed(64)], out, title=new.name)
    names = [path.relative_to(old) for path in old.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file()) == sorted(names)
    for name in names:
        assert (out / name).read_bytes() in ((old / name).read_bytes(), (new / name).read_bytes())
    assert (out / "rows.jsonl.gz").read_bytes() == (old / "rows.jsonl.gz").read_bytes()


def test_no_rows_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one row at least"):
        write_report([], tmp_path, title="Nothing")
