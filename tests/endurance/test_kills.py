"""Fifty kills of all kinds; a thousand are for the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a killed process leaves behind is found as Linux has it")
def test_fifty_kills_leave_no_trace():
    command = [sys.executable, "-m", "tests.endurance.kills", "what=all", "count=50", "seed=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split()[:3] for line in done.stdout.splitlines()]
    assert [each[:2] for each in found] == [
        ["training:", "32"],
        ["finetuning:", "10"],
        ["benchmark:", "5"],
        ["comparison:", "3"],
    ]
