"""The report's script: rows of several files become one report, and mistakes one line."""

import json
import os
from pathlib import Path

import pytest

from eval.rows import RowStore
from recipes.app import execute
from recipes.report import main
from tests.eval.rows_factory import skipped, speed


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = execute("report", main, list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _store(path: Path, *rows) -> Path:
    RowStore(path).append(rows)
    return path


def test_files_folders_and_patterns_become_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _store(tmp_path / "a.jsonl", speed(64))
    _store(tmp_path / "runs" / "b" / "rows.jsonl", skipped(128))
    _store(tmp_path / "runs" / "c" / "rows.jsonl", skipped(128), speed(256))
    page = tmp_path / "page.md"
    page.write_text("<!-- results:coverage -->\n<!-- /results:coverage -->\n", encoding="utf-8")
    rows = f"rows=[{first},{tmp_path}/runs/b,{tmp_path}/runs/*/rows.jsonl]"
    code, out, err = _run(capsys, rows, f"out={tmp_path}/out", "title=Mine", f"pages=[{page}]")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert Path(result["report_path"]).is_file()
    summary = result["summary"]
    assert (summary["files"], summary["rows"]) == (3, 3)
    assert summary["statuses"] == {"ok": 2, "skipped": 1}
    assert summary["changed_pages"] == [str(page)]
    assert "| all | 3 |" in page.read_text(encoding="utf-8")
    # A report may be made again of its own rows.
    code, out, _ = _run(capsys, f"rows=[{tmp_path}/out]", f"out={tmp_path}/out")
    assert (code, json.loads(out)["summary"]["rows"]) == (0, 3)


@pytest.mark.parametrize(
    "pattern", ["exp[12]/*/rows.jsonl", "exp[12]/*", "exp[12]/**/rows.jsonl", "e*/[ab]/rows.jsonl"]
)
def test_a_part_of_a_pattern_that_exists_is_no_wildcard(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _store(tmp_path / "exp[12]" / "[ab]" / "rows.jsonl", speed(64))
    _store(tmp_path / "exp1" / "b" / "rows.jsonl", skipped(128))
    code, out, err = _run(capsys, f"rows=[{tmp_path}/{pattern}]", f"out={tmp_path}/out")
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])["summary"]
    own = {"ok": 1} if pattern.startswith("exp") else {"ok": 1, "skipped": 1}
    assert summary["statuses"] == own


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rows=[{folder}/nothing.jsonl]"], "nothing.jsonl"),
        (["rows=[{folder}/*/nothing.jsonl]"], "must name files of rows"),
        (["rows=[{folder}/wrong.jsonl]"], "line 1"),
        (["rows=[{folder}/empty.jsonl]"], "one row at least"),
        (["rows=[]"], "at least one file"),
        ([], "rows must be given"),
        (["rows=[{folder}/good.jsonl]", "out={folder}/wrong.jsonl/x"], "can be written"),
        (["rows=[{folder}/good.jsonl]", "titel=x"], "title"),
        (["rows=[{folder}/pipe]"], "must name files of rows"),
        (["rows=[/dev/zero]"], "must name files of rows"),
        (["rows=[{folder}/none]"], "must name files of rows"),
        (["rows=[{folder}/a**]"], "must name files of rows"),
        (["rows=[{folder}/" + "x" * 300 + "]"], "rows must be a path that can be looked up"),
        (["rows=[~nobody-of-this-name]"], "a home folder that exists"),
        (["rows=['']"], "name files or folders"),
        (["rows=[{folder}/good.jsonl]", "out=~nobody-of-this-name/x"], "a home folder that exists"),
        (["rows=[{folder}/good.jsonl]", "pages=[{folder}/pipe]"], "must be a regular file"),
        (["rows=[{folder}/good.jsonl]", "pages=[{folder}/missing.md]"], "must exist"),
        (["rows=[{folder}/good.jsonl]", "pages=[{folder}/latin.md]"], "must be UTF-8"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _store(tmp_path / "good.jsonl", speed(64))
    (tmp_path / "wrong.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "latin.md").write_bytes(b"\xe9")
    (tmp_path / "none").mkdir()
    os.mkfifo(tmp_path / "pipe")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    if not any(argument.startswith("out=") for argument in given):
        given.append(f"out={tmp_path}/out")
    code, out, err = _run(capsys, *given)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err
