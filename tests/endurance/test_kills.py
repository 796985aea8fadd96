"""Fifty kills of all kinds; a thousand are for the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A process of its own, so that the server is its own too.
_ASK_AND_DIE = """
import multiprocessing
import multiprocessing.forkserver
import socket
from pathlib import Path

from tests.endurance.benchmarks import Benchmarks

Benchmarks(Path())
for _ in range(3):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(multiprocessing.forkserver._forkserver._forkserver_address)
worker = multiprocessing.get_context("forkserver").Process(target=print, args=("a worker came",))
worker.start()
worker.join()
"""


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


def test_a_client_killed_while_it_asks_for_a_worker_does_not_end_the_server():
    served = subprocess.run([sys.executable, "-c", _ASK_AND_DIE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (served.stdout, served.stderr) == ("a worker came\n", "")
