"""`scripts/train.py` as a user starts it: a process of its own, which can be interrupted and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipes.tiny_train import arguments
from zoo.checkpoints import find_checkpoint
from zoo.training import read_metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(text_corpus, tmp_path_factory, tmp_path):
    """Starts the script in another folder than the project's."""
    cache = tmp_path_factory.getbasetemp() / "token-cache"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = []

    def start_script(*more):
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments(text_corpus, cache, *more)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start_script
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finished(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def wait_for_step(process, folder, step):
    """Waits until a run has logged a step; false if it ended before."""
    while process.poll() is None:
        rows = read_metrics(folder / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            return True
        time.sleep(0.005)
    return False


def test_a_mistake_is_one_line_and_exit_code_2(start):
    process = start("attention=blockspare")
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("error: attention must be one of its choices; got 'blockspare'")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_prints_and_exits_cleanly(number, start, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    process = start(run_dir, "training.steps=100000", "training.log_every=1", "training.eval_every=null")
    assert wait_for_step(process, tmp_path / "run", 5)
    if number == signal.SIGHUP:
        # With the terminal goes whoever reads the progress.
        process.stderr.close()
        process.stderr = None
        assert wait_for_step(
            process, tmp_path / "run", read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] + 20
        )
    process.send_signal(number)
    result = finished(process)
    assert (result["interrupted"], result["stopped_by"]) == (True, "signal")
    assert 5 <= result["steps"] < 100_000
    assert find_checkpoint(tmp_path / "run").name == f"step_{result['steps']:06d}"
