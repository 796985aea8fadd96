"""`scripts/benchmark.py` as a whole: wrong implementations get no time, and a killed run goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.rows import RowStore, read_rows
from tests.eval.speed.outside import WRONG, lay_out

ROOT = Path(__file__).resolve().parents[2]


def _start(run_dir: Path, *arguments: str, site: Path = ROOT) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "scripts/benchmark.py", "rounds=5", f"run_dir={run_dir}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not (path.is_file() and path.read_bytes().count(b"\n") >= count):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_wrong_implementations_from_outside_get_rows_without_a_time(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    lay_out(site, WRONG)
    variants = f"variants=[mha_manual,{','.join(WRONG)}]"
    grid = [variants, "levels=[op,layer]", "modes=[forward,forward_backward]", "lengths=[33]"]
    result = _finish(_start(tmp_path / "run", *grid, site=site))
    rows = [row for row in read_rows(Path(str(result["rows_path"]))) if row.cell.suite != "device"]
    wrong = [row for row in rows if row.cell.variant in WRONG]
    assert len(wrong) == len(WRONG) * 4
    for row in wrong:
        assert (row.status, row.timing, row.comparison) == ("incorrect", None, None), row.cell
        assert row.correctness is not None
        assert not row.correctness.passed
        assert row.reason
    right = [row for row in rows if row.cell.variant not in WRONG]
    assert len(right) == 2 * 4
    assert all(row.status == "ok" and row.timing is not None for row in right)


_GRID = ("variants=[mha_manual]", "levels=[op]", "modes=[forward]", "lengths=[17,18,19,20]")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = _start(tmp_path, *_GRID)
    # The device's own limits, and the first group.
    _wait_for_lines(path, 5, first)
    first.kill()
    first.communicate()
    before = path.read_bytes()
    finished = RowStore(path).rows
    assert 5 <= len(finished) < 3 + 4 * 2
    result = _finish(_start(tmp_path, *_GRID))
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    lines = path.read_text(encoding="utf-8").splitlines()
    identities = [json.loads(line)["identity"] for line in lines]
    assert len(identities) == len(set(identities)) == 3 + 4 * 2
    after = RowStore(path).rows
    assert all(after[identity].recorded_at == row.recorded_at for identity, row in finished.items())
    assert (result["num_rows"], result["statuses"], result["interrupted"]) == (8, {"ok": 8}, False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_peace_with_what_was_measured(number: signal.Signals, tmp_path: Path) -> None:
    process = _start(tmp_path, *_GRID)
    _wait_for_lines(tmp_path / "rows.jsonl", 3, process)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"] is True
    assert result["num_rows"] < 8
    assert len(RowStore(tmp_path / "rows.jsonl").rows) == 3 + result["num_rows"]
