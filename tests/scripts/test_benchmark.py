"""`scripts/benchmark.py` as a whole: wrong implementations get no time, an interrupted run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.rows import RowStore, read_rows
from tests.eval.bench.outside import WRONG, lay_out

ROOT = Path(__file__).resolve().parents[2]
# A null call, a matrix product, a copy.
_DEVICE_ROWS = 3
# Three groups of a cell and its control.
_GRID = ("variants=[mha_manual]", "levels=[op]", "modes=[forward]", "lengths=[17,18,19]")
_GRID_ROWS = 3 * 2


def _start(run_dir: Path, *arguments: str, site: Path = ROOT) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "scripts/benchmark.py", "rounds=5", f"run_dir={run_dir}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def wrong_ones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a new run of an implementation of ours and of wrong ones from outside: first the device's own limits."""
    folder = tmp_path_factory.mktemp("wrong")
    site = folder / "site"
    site.mkdir()
    lay_out(site, WRONG)
    variants = f"variants=[mha_manual,{','.join(WRONG)}]"
    grid = [variants, "levels=[op,layer]", "modes=[forward_backward]", "lengths=[33]"]
    return Path(str(_finish(_start(folder / "run", *grid, site=site))["rows_path"]))


@pytest.fixture
def run_dir(tmp_path: Path, wrong_ones: Path) -> Path:
    """A folder with the device's limits, which a run that finds them does not measure again."""
    lines = wrong_ones.read_bytes().splitlines(keepends=True)[:_DEVICE_ROWS]
    assert all(b'"suite":"device"' in line for line in lines)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(b"".join(lines))
    return folder


def _finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not (path.is_file() and path.read_bytes().count(b"\n") >= count):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_wrong_implementations_from_outside_get_rows_without_a_time(wrong_ones: Path) -> None:
    rows = [row for row in read_rows(wrong_ones) if row.cell.suite != "device"]
    wrong = [row for row in rows if row.cell.variant in WRONG]
    assert len(wrong) == len(WRONG) * 2
    for row in wrong:
        assert (row.status, row.timing, row.comparison) == ("incorrect", None, None), row.cell
        assert row.correctness is not None
        assert not row.correctness.passed
        assert row.reason
    right = [row for row in rows if row.cell.variant not in WRONG]
    assert len(right) == 2 * 2
    assert all(row.status == "ok" and row.timing is not None for row in right)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_was_measured_and_goes_on(run_dir: Path) -> None:
    path = run_dir / "rows.jsonl"
    process = _start(run_dir, *_GRID)
    _wait_for_lines(path, _DEVICE_ROWS + 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"] is True
    assert 2 <= result["num_rows"] < _GRID_ROWS
    before = path.read_bytes()
    assert len(RowStore(path).rows) == _DEVICE_ROWS + result["num_rows"]
    result = _finish(_start(run_dir, *_GRID))
    assert path.read_bytes().startswith(before)
    identities = [json.loads(line)["identity"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(identities) == len(set(identities)) == _DEVICE_ROWS + _GRID_ROWS
    assert (result["num_rows"], result["statuses"], result["interrupted"]) == (_GRID_ROWS, {"ok": _GRID_ROWS}, False)
