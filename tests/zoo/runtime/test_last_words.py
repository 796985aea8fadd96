"""A process that is killed leaves one line; one that ends by itself leaves none."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Loaded by itself, for the interpreter's start is all that the test waits for.
MODULE = ROOT / "zoo" / "runtime" / "last_words.py"
CODE = """
import os, runpy, signal, sys
last_words = runpy.run_path(sys.argv[1])["last_words"]
with last_words("it is $HOME 'over' %s"):
    exec(sys.argv[2])
"""


def stderr_of(ending: str) -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE, str(MODULE), ending], capture_output=True, text=True, check=False
    )
    return done.stderr


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_killed_process_leaves_its_last_words(name: str) -> None:
    assert stderr_of(f"os.kill(os.getpid(), signal.{name})") == "\nerror: it is $HOME 'over' %s\n"


@pytest.mark.parametrize("ending", ["pass", "sys.exit(2)", "signal.raise_signal(signal.SIGINT)"])
def test_a_process_that_ends_by_itself_leaves_none(ending: str) -> None:
    assert "over" not in stderr_of(ending).replace("KeyboardInterrupt", "")
