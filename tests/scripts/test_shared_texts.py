"""Several processes write one text: that of one; a signal ends it, and so does a process that stops, with a line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import command_lines, require_nobody_left
from tests.zoo.training.tiny import TOKENIZER, tiny_model
from zoo.checkpoints import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PATIENCE, LIMIT = 3.0, 120.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, of which two processes can have a half each."""
    model = tiny_model("swa", family="llama", num_kv_heads=2, intermediate_size=32, max_seq_len=4096, init_std=0.8)
    return save_checkpoint(tmp_path_factory.mktemp("model") / "tiny", model=model, tokenizer=TOKENIZER)


def begin(checkpoint: Path, *more: str) -> "subprocess.Popen[str]":
    """Starts to write."""
    typed = (f"checkpoint={checkpoint}", "prompt=The ", "temperature=0", "stop_at_eos=false", *more)
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), *typed]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_share_a_model_write_the_text_of_one(checkpoint: Path) -> None:
    texts = []
    for processes in (1, 2):
        process = begin(checkpoint, "max_tokens=12", f"launch.processes={processes}")
        out, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, errors
        *shown, told = out.splitlines()
        texts.append(("\n".join(shown), json.loads(told)["text"]))
    assert texts[0] == texts[1]
    assert texts[0][1]


@pytest.mark.slow
def test_a_text_ends_with_one_line_when_a_process_is_stopped(checkpoint: Path) -> None:
    own = ("launch.processes=2", f"launch.patience_seconds={PATIENCE}")
    process = begin(checkpoint, "max_tokens=1000000", *own)
    assert process.stdout is not None
    assert process.stdout.read(1)
    words = f"checkpoint={checkpoint} "
    os.kill(max(pid for pid, line in command_lines().items() if words in line and own[0] not in line), signal.SIGSTOP)
    _, errors = process.communicate(timeout=LIMIT)
    (line,) = (each for each in errors.splitlines() if "error: " in each)
    assert " of 2 has not answered for 3 s, so the run has ended; the same command begins again" in line
    assert process.returncode == 2
    require_nobody_left(words)


@pytest.mark.slow
def test_a_signal_ends_a_text_that_processes_write_together(checkpoint: Path) -> None:
    process = begin(checkpoint, "max_tokens=1000000", "launch.processes=2")
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    told = json.loads(out.splitlines()[-1])
    assert told["interrupted"] is True
    assert told["generated_tokens"] > 0
