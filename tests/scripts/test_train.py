"""`scripts/train.py` as a user starts it: a process of its own, which can be interrupted and killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
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


@pytest.mark.slow
def test_ten_kills_leave_no_trace_in_the_result(start, tmp_path):
    steps, kills = 150, 10
    options = [
        "training.compile=true",
        f"training.steps={steps}",
        "training.checkpoint_every=3",
        "training.log_every=1",
        "training.eval_every=50",
        "training.sample_tokens=0",
        "model.dropout=0.2",
        "resume=auto",
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    expected = finished(start(*options, f"run_dir={whole}"))
    generator = random.Random(17)
    for index in range(kills):
        process = start(*options, f"run_dir={killed}")
        if index % 5 == 4:
            # Somewhere in the start: imports, reading the corpus, restoring the checkpoint.
            time.sleep(generator.uniform(0.1, 3))
        else:
            assert wait_for_step(
                process, killed, generator.randrange(index * steps // kills, (index + 1) * steps // kills)
            )
            time.sleep(generator.uniform(0, 0.1))
        assert process.poll() is None, f"kill {index} came too late"
        process.kill()
        process.communicate()
    found = finished(start(*options, f"run_dir={killed}"))
    for key in ("steps", "tokens", "first_train_loss", "train_loss", "val_loss", "val_bits_per_byte"):
        assert found[key] == expected[key], key
    for name in ("model.safetensors", "optimizer.safetensors"):
        left, right = (dict(mx.load(str(find_checkpoint(folder) / name))) for folder in (killed, whole))
        assert left.keys() == right.keys()
        assert [key for key, array in left.items() if not mx.array_equal(array, right[key]).item()] == []
    losses = [
        [(row["step"], row.get("train_loss"), row.get("val_loss")) for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (killed, whole)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == steps + steps // 50
